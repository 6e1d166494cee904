#include "tests/chaos/faults.h"

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "common/checkpoint/table_source.h"
#include "tests/support/cluster.h"
#include "tests/support/eventually.h"
#include "tests/support/process_memory.h"

namespace engram::chaos {
namespace {

using namespace std::chrono_literals;
using testing_support::Eventually;

constexpr uint64_t kRowsBetween = 997;  // nodes own some of them

void Start(Lab& lab, size_t node) {
  lab.Launch(node);
  EXPECT_TRUE(lab.AwaitReady(node)) << lab.node(node).Stderr();
}

void Kill(Lab& lab, size_t node) {
  lab.node(node).Signal(SIGKILL);
  EXPECT_EQ(lab.node(node).WaitExit(10s), 128 + SIGKILL) << lab.node(node).Stderr();
}

void Terminate(Lab& lab, size_t node) {
  lab.node(node).Signal(SIGTERM);
  EXPECT_EQ(lab.node(node).WaitExit(20s), 0) << lab.node(node).Stderr();
}

void Stop(Lab& lab, size_t node) { lab.node(node).Signal(SIGSTOP); }
void Continue(Lab& lab, size_t node) { lab.node(node).Signal(SIGCONT); }

// A fault of the node's cable.
std::function<void(Lab&, size_t)> Cabled(const Cable& cable) {
  return [cable](Lab& lab, size_t node) { lab.SetCable(node, cable); };
}

std::string FillerOf(const Lab& lab, size_t node) { return lab.disk(node) + "/filler"; }

void FillDisk(Lab& lab, size_t node) {
  std::ofstream filler(FillerOf(lab, node), std::ios::binary);
  while (filler << std::string(4096, 'x') && filler.flush()) continue;
}

void StartOnFullDisk(Lab& lab, size_t node) {
  FillDisk(lab, node);
  Kill(lab, node);
  Start(lab, node);
}

void FreeDisk(Lab& lab, size_t node) { std::filesystem::remove(FillerOf(lab, node)); }

// The largest file of the store: rows, and at its end what finds them.
std::string FileOfRows(const Lab& lab, size_t node) {
  std::string largest;
  uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(lab.store(node))) {
    if (entry.path().extension() != ".sst" || entry.file_size() <= bytes) continue;
    bytes = entry.file_size();
    largest = entry.path();
  }
  return largest;
}

// Until the node has found it.
void FlipStoredByte(Lab& lab, size_t node) {
  const auto found = [&] { return lab.Metric(node, "engram_memnode_bad_pages_found_total"); };
  const double before = found();
  const std::string path = FileOfRows(lab, node);
  const auto offset = static_cast<std::streamoff>(std::filesystem::file_size(path) / 2);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(offset);
  const int byte = file.get();
  file.seekp(offset);
  file.put(static_cast<char>(byte ^ 0x04));
  ASSERT_TRUE(file.flush().good()) << path;
  EXPECT_TRUE(Eventually([&] { return found() > before; })) << lab.node(node).Stderr();
}

void AwaitMended(Lab& lab, size_t node) {
  EXPECT_TRUE(Eventually([&] { return lab.Metric(node, "engram_memnode_bad_pages ") == 0; }))
      << lab.node(node).Stderr();
}

// Of a row that this node has, and until the node has found it: by itself, or told by a client.
void FlipBitInMemory(Lab& lab, size_t node) {
  const auto found = [&] { return lab.Metric(node, "engram_memnode_memory_damaged_rows_total"); };
  const double before = found();
  const auto model = client::LoadModelTables(lab.model(), "", "1");
  ASSERT_TRUE(model.ok()) << model.status().message();
  const auto rows = client::OpenTableSource(lab.model(), *model);
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  std::vector<std::byte> row((*rows)->row_format().row_bytes());
  int flipped = 0;
  for (uint64_t i = 0; i < (*rows)->rows(0) && flipped == 0; i += kRowsBetween) {
    ASSERT_TRUE((*rows)->ReadRows(0, i, 1, row.data()).ok());
    flipped = testing_support::FlipInMemoryOf(lab.node(node).pid(), row);
  }
  ASSERT_GT(flipped, 0) << "no access to the node's memory, or it has none of the rows";
  EXPECT_TRUE(Eventually([&] { return found() > before; })) << lab.node(node).Stderr();
}

void Nothing(Lab&, size_t) {}

// engramctl, on all nodes.
void Change(const Lab& lab, std::vector<std::string> argv) {
  std::string nodes;
  for (size_t i = 0; i < Lab::kNodes; ++i) nodes += (i > 0 ? "," : "") + lab.control(i);
  argv.insert(argv.begin(), testing_support::Binary("engramctl"));
  argv.insert(argv.end(), {"--nodes", nodes, "--secret-file", lab.secret_file()});
  const testing_support::Finished run = testing_support::RunToEnd(argv, lab.work_dir());
  EXPECT_EQ(run.exit_code, 0) << run.err;
}

std::string NameOf(size_t node) { return "m" + std::to_string(node); }

std::function<void(Lab&, size_t)> Weighing(const std::string& weight) {
  return [weight](Lab& lab, size_t node) {
    Change(lab, {"rebalance", "--weights", NameOf(node) + "=" + weight});
  };
}

void Remove(Lab& lab, size_t node) { Change(lab, {"remove", NameOf(node), "--now"}); }
void Add(Lab& lab, size_t node) {
  Change(lab, {"add", NameOf(node), "--address", lab.control(node)});
}

}  // namespace

std::span<const Fault> Faults() {
  static const Fault kFaults[] = {
      {"kill -9, start again", Kill, Start},
      {"SIGTERM, start again", Terminate, Start},
      {"SIGSTOP, SIGCONT", Stop, Continue},
      {"cut off", Cabled({.lost = 1}), Cabled({})},
      {"hears all, is not heard", Cabled({.lost = 1, .only_sent = true}), Cabled({})},
      {"20 ms late, each way", Cabled({.delay = 20ms}), Cabled({})},
      {"5 % of frames lost", Cabled({.lost = 0.05}), Cabled({})},
      {"frames overtake, 0 to 5 ms", Cabled({.jitter = 5ms}), Cabled({})},
      {"bytes flipped on the way", Cabled({.flipped = 0.05}), Cabled({})},
      {"byte flipped in the store", FlipStoredByte, AwaitMended},
      {"bit flipped in memory", FlipBitInMemory, Nothing},
      {"full disk", FillDisk, FreeDisk},
      {"full disk, kill -9, start on it", StartOnFullDisk, FreeDisk},
      {"three times the rows, and back", Weighing("3"), Weighing("1")},
      {"out of the list, and back", Remove, Add},
  };
  return kFaults;
}

}  // namespace engram::chaos
