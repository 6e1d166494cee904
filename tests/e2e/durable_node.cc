#include "tests/e2e/durable_node.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "common/base/rng.h"
#include "common/checkpoint/table_source.h"
#include "common/client/lookup/config.h"
#include "common/net/control/admin.h"
#include "memnode/store/manifest.h"
#include "memnode/store/rocks_store.h"
#include "memnode/upkeep/verify.h"
#include "tests/support/cluster.h"

namespace engram::testing_support {

using namespace std::chrono_literals;

std::string MakeTables(const std::string& work_dir, int seed) {
  const std::string dir = work_dir + "/v41-" + std::to_string(seed);
  const Finished made =
      RunToEnd({Binary("engramctl"), "make-model", "--layout", "v41", "--rows-scale", "6e-5",
                "--seed", std::to_string(seed), "--out", dir},
               work_dir);
  EXPECT_EQ(made.exit_code, 0) << made.err;
  return dir;
}

Process& DurableNode::Start(const std::string& model_dir, const std::string& version) {
  std::vector<std::string> argv = {Binary("engram-memnode")};
  std::vector<std::string> settings = {"store.path=" + store_, "control.listen=127.0.0.1:0",
                                       "http.listen=127.0.0.1:0"};
  if (!model_dir.empty()) {
    settings.push_back("model.path=" + model_dir);
    settings.push_back("model.name=" + std::string(kTables));
    settings.push_back("model.version=" + version);
  }
  settings.insert(settings.end(), settings_.begin(), settings_.end());
  for (const std::string& setting : settings) {
    argv.push_back("--set");
    argv.push_back(setting);
  }
  process_ = std::make_unique<Process>("node", std::move(argv), work_dir_);
  return *process_;
}

bool DurableNode::StartReady(const std::string& model_dir, const std::string& version) {
  const std::string line = Start(model_dir, version).WaitLine("ready ", 30s);
  control_ = ValueOf(line, "control");
  return !line.empty();
}

void DurableNode::Kill() {
  process_->Signal(SIGKILL);
  EXPECT_EQ(process_->WaitExit(10s), 128 + SIGKILL)
      << "it had ended by itself: " << process_->Stderr();
}

void DurableNode::Stop() {
  process_->Signal(SIGTERM);
  EXPECT_EQ(process_->WaitExit(20s), 0) << process_->Stderr();
}

std::string DurableNode::Error() {
  EXPECT_EQ(process_->WaitExit(30s), 1) << process_->Stderr();
  std::istringstream lines(process_->Stderr());
  std::string last;
  int told = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("engram-memnode: ")) ++told;
    last = line;
  }
  EXPECT_EQ(told, 1) << "one clear error: " << process_->Stderr();
  EXPECT_TRUE(last.starts_with("engram-memnode: ")) << last;
  return last;
}

Result<json::object> DurableNode::Call(const json::object& request) const {
  const size_t colon = control_.rfind(':');
  CHECK(colon != std::string::npos) << "not ready";
  const auto port = static_cast<uint16_t>(std::stoi(control_.substr(colon + 1)));
  return net::CallNode(control_.substr(0, colon), port, request, 10s);
}

Result<json::object> DurableNode::Job(const json::object& request) const {
  ASSIGN_OR_RETURN(const json::object started, Call(request));
  const json::value* job = started.if_contains("job");
  if (job == nullptr) return started;
  for (const auto limit = std::chrono::steady_clock::now() + 60s;
       std::chrono::steady_clock::now() < limit;) {
    ASSIGN_OR_RETURN(json::object seen, Call({{"command", "job"}, {"job", *job}}));
    ASSIGN_OR_RETURN(const std::string state, io::GetString(seen, "state", "job"));
    if (state == "done") return seen;
    if (state == "failed") return InternalError(json::serialize(seen));
    std::this_thread::sleep_for(2ms);
  }
  return DeadlineExceeded("the job did not end");
}

Result<std::map<std::string, std::string>> CompleteVersions(const std::string& path) {
  std::map<std::string, std::string> versions;
  ASSIGN_OR_RETURN(const auto store, memnode::OpenRocksStore(path));
  ASSIGN_OR_RETURN(auto manifests, memnode::AllManifests(*store));
  for (memnode::Manifest& manifest : manifests) {
    const table::TableIdentity identity = manifest.identity;
    ASSIGN_OR_RETURN(const auto reader, memnode::TableReader::Open(*store, std::move(manifest)));
    ASSIGN_OR_RETURN(const auto report, memnode::VerifyTables(*reader));
    if (!report.sound()) {
      return DataLoss("version " + identity.version + ": " + report.damage.front().why);
    }
    versions[identity.version] = identity.content_digest;
  }
  return versions;
}

Status CompareServedRows(const std::string& control, const std::string& model_dir,
                         const std::string& version, int count, uint64_t seed) {
  ASSIGN_OR_RETURN(const auto model, client::LoadModelTables(model_dir, kTables, version));
  ASSIGN_OR_RETURN(const auto source, client::OpenTableSource(model_dir, model));
  client::LookupConfig config;
  config.memnodes = {control};
  ASSIGN_OR_RETURN(const auto rows, config.Connect(model.layout, model.identity));
  Rng rng(seed);
  const size_t row_bytes = source->row_format().row_bytes();
  for (uint32_t layer = 0; layer < source->layer_count(); ++layer) {
    std::vector<uint64_t> ids(static_cast<size_t>(count));
    for (uint64_t& id : ids) id = rng.NextU64() % source->rows(layer);
    std::vector<std::byte> served(ids.size() * row_bytes), expected(row_bytes);
    const client::LayerLookup lookup{layer, ids, served};
    ASSIGN_OR_RETURN(auto ticket, rows->Submit({&lookup, 1}, Clock::Real().Now() + 10s));
    RETURN_IF_ERROR(ticket.Wait(layer));
    for (size_t i = 0; i < ids.size(); ++i) {
      RETURN_IF_ERROR(source->ReadRows(layer, ids[i], 1, expected.data()));
      if (!std::equal(expected.begin(), expected.end(),
                      served.begin() + static_cast<std::ptrdiff_t>(i * row_bytes))) {
        return DataLoss("a wrong row was served: " + std::to_string(ids[i]));
      }
    }
  }
  return OkStatus();
}

std::vector<std::string> PageFiles(const std::string& store) {
  constexpr uint64_t kRecordsAtMost = 1 << 20;
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(store)) {
    if (entry.path().extension() == ".sst" && entry.file_size() > kRecordsAtMost) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

void FlipBit(const std::string& path, uint64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ 0x04));
  ASSERT_TRUE(file.flush().good()) << path;
}

std::vector<std::chrono::microseconds> SpreadPoints(std::chrono::microseconds span, int count,
                                                    uint64_t seed) {
  Rng rng(seed);
  std::vector<std::chrono::microseconds> points;
  const auto part = static_cast<uint64_t>(span.count() / count + 1);
  for (int i = 0; i < count; ++i) {
    points.emplace_back(static_cast<uint64_t>(i) * part + rng.NextU64() % part);
  }
  for (size_t i = points.size(); i > 1; --i) std::swap(points[i - 1], points[rng.NextU64() % i]);
  return points;
}

}  // namespace engram::testing_support
