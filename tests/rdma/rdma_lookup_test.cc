// A memory node and its clients over RDMA: the paths agree byte for byte with the table, a stopped
// node's rows are still read, a killed node is an error soon. Run inside the virtual machine of
// run_in_vm.sh.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstdio>
#include <numeric>

#include "common/base/rng.h"
#include "common/client/lookup/client.h"
#include "common/net/ucx/transport.h"
#include "common/table/procedural.h"
#include "tests/support/process.h"

namespace engram {
namespace {

using client::LookupClient;
using client::Path;
using testing_support::Process;

constexpr auto kStepTimeout = std::chrono::seconds(20);
constexpr auto kNoticedWithin = std::chrono::seconds(3);  // 20 ms on an idle host
const table::ProceduralSpec kSpec = {.layout = "v41", .rows_scale = 1e-4, .seed = 7};

// One step's rows of every layer, and where they come to lie.
struct Step {
  Step(const table::TableLayout& of, size_t rows_per_layer, Rng& rng) : layout(of) {
    for (const table::LayerLayout& layer : layout.layers) {
      auto& ids = rows.emplace_back(rows_per_layer);
      for (uint64_t& id : ids) id = rng.NextBelow(layer.total_rows);
      out.emplace_back(rows_per_layer * layout.row_format.row_bytes());
    }
  }

  Status Run(client::RowSource& source) {
    ASSIGN_OR_RETURN(auto ticket, Submit(source));
    Status first_error;
    for (uint32_t i = 0; i < rows.size(); ++i) {
      const Status status = ticket.Wait(i);
      if (first_error.ok()) first_error = status;
    }
    return first_error;
  }

  Result<client::Ticket> Submit(client::RowSource& source) {
    std::vector<client::LayerLookup> lookups;
    for (uint32_t i = 0; i < rows.size(); ++i) {
      lookups.push_back({.layer_index = i, .rows = rows[i], .out = out[i]});
    }
    return source.Submit(lookups, Clock::Real().Now() + kStepTimeout);
  }

  size_t WrongRows() const {
    const size_t row_bytes = layout.row_format.row_bytes();
    std::vector<std::byte> expected(row_bytes);
    size_t wrong = 0;
    for (uint32_t i = 0; i < rows.size(); ++i) {
      for (size_t k = 0; k < rows[i].size(); ++k) {
        table::FillProceduralRow(layout.row_format, kSpec.seed, i, rows[i][k], expected);
        const std::span<const std::byte> got = std::span(out[i]).subspan(k * row_bytes, row_bytes);
        wrong += std::equal(got.begin(), got.end(), expected.begin()) ? 0 : 1;
      }
    }
    return wrong;
  }

  const table::TableLayout& layout;
  std::vector<std::vector<uint64_t>> rows;
  std::vector<std::vector<std::byte>> out;
};

struct RdmaLookup : testing::Test {
  RdmaLookup()
      : work_dir(testing_support::MakeTempDir("rdma")),
        layout(*table::MakeProceduralLayout(kSpec)),
        node("m0", NodeCommand(), work_dir) {
    const std::string line = node.WaitLine("ready ", std::chrono::seconds(40));
    EXPECT_NE(line, "") << "the memory node did not start: " << node.Stderr();
    address = testing_support::ValueOf(line, "control");
  }

  static std::vector<std::string> NodeCommand() {
    std::vector<std::string> argv = {std::string(ENGRAM_BIN_DIR) + "/engram-memnode"};
    for (const char* setting :
         {"control.listen=127.0.0.1:0", "http.listen=127.0.0.1:0", "transport.kind=ucx",
          "ucx.transports=rc_v,self", "procedural.layout=v41", "procedural.rows_scale=1e-4",
          "procedural.seed=7", "arena.pages=small", "arena.share=off"}) {
      argv.insert(argv.end(), {"--set", setting});
    }
    return argv;
  }

  std::unique_ptr<LookupClient> Connect(client::PathChoice path) {
    client::LookupClientOptions options;
    options.memnodes = {address};
    options.identity = table::MakeProceduralIdentity(kSpec, layout);
    options.connect_timeout_ms = 20'000;
    options.path = path;
    options.make_transport = [] { return net::MakeUcxTransport({.tls = "rc_v,self"}); };
    auto connected = LookupClient::Connect(options, layout);
    EXPECT_TRUE(connected.ok()) << connected.status().ToString() << "\n" << node.Stderr();
    return connected.ok() ? std::move(*connected) : nullptr;
  }

  const std::string work_dir;
  const table::TableLayout layout;
  Process node;
  std::string address;
  Rng rng{3};
};

uint64_t RowsBy(const LookupClient& source, Path path) {
  const auto nodes = source.stats().nodes;
  return std::accumulate(nodes.begin(), nodes.end(), uint64_t{0}, [&](uint64_t sum, const auto& n) {
    return sum + n.rows_by_path[static_cast<size_t>(path)];
  });
}

TEST_F(RdmaLookup, EveryPathBringsTheTablesOwnBytes) {
  const auto gather = Connect(Path::kGather);
  const auto one_sided = Connect(Path::kOneSided);
  ASSERT_TRUE(gather != nullptr && one_sided != nullptr);
  for (const size_t rows : {1, 24, 1536}) {
    Step step(layout, rows, rng);
    Step same = step;
    const Status gathered = step.Run(*gather);
    ASSERT_TRUE(gathered.ok()) << gathered.ToString();
    const Status read = same.Run(*one_sided);
    ASSERT_TRUE(read.ok()) << read.ToString();
    EXPECT_EQ(step.out, same.out);
    EXPECT_EQ(step.WrongRows(), 0u);
    EXPECT_EQ(same.WrongRows(), 0u);
  }
  EXPECT_GT(RowsBy(*gather, Path::kGather), 1500u);
  EXPECT_EQ(RowsBy(*gather, Path::kOneSided), 0u);
  EXPECT_GT(RowsBy(*one_sided, Path::kOneSided), 1500u);
  EXPECT_EQ(RowsBy(*one_sided, Path::kGather), 0u);
}

TEST_F(RdmaLookup, LeftAloneAClientTimesThePathsAndChoosesOne) {
  const auto source = Connect(std::nullopt);
  ASSERT_NE(source, nullptr);
  for (const std::string& line : source->DescribePaths()) std::printf("%s\n", line.c_str());
  for (const size_t rows : {1, 1000}) {
    Step step(layout, rows, rng);
    const Status read = step.Run(*source);
    ASSERT_TRUE(read.ok()) << read.ToString();
    EXPECT_EQ(step.WrongRows(), 0u);
  }
  const uint64_t gathered = RowsBy(*source, Path::kGather);
  const uint64_t read = RowsBy(*source, Path::kOneSided);
  EXPECT_EQ(gathered + read, source->stats().rows_distinct);
  std::printf("%lu rows gathered, %lu read\n", static_cast<unsigned long>(gathered),
              static_cast<unsigned long>(read));
}

TEST_F(RdmaLookup, AStoppedNodesRowsAreStillRead) {
  const auto one_sided = Connect(Path::kOneSided);
  ASSERT_NE(one_sided, nullptr);
  node.Signal(SIGSTOP);
  siginfo_t info = {};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(node.pid()), &info, WSTOPPED | WNOWAIT), 0);
  for (int i = 0; i < 10; ++i) {
    Step step(layout, 100, rng);
    const Status read = step.Run(*one_sided);
    ASSERT_TRUE(read.ok()) << read.ToString();
    EXPECT_EQ(step.WrongRows(), 0u);
  }
}

TEST_F(RdmaLookup, AKilledNodeIsSoonAnError) {
  const auto one_sided = Connect(Path::kOneSided);
  ASSERT_NE(one_sided, nullptr);
  Step step(layout, 5000, rng);
  auto ticket = step.Submit(*one_sided);
  ASSERT_TRUE(ticket.ok()) << ticket.status().ToString();
  node.Signal(SIGKILL);
  ASSERT_EQ(node.WaitExit(std::chrono::seconds(10)), 128 + SIGKILL);
  const TimePoint killed = Clock::Real().Now();
  (void)ticket->Wait(0);  // it may have been read before the node died
  Status status = ticket->Wait(1);
  while (status.ok() && Clock::Real().Now() < killed + kStepTimeout) {
    status = Step(layout, 10, rng).Run(*one_sided);
  }
  const auto took =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::Real().Now() - killed);
  std::printf("a killed node was an error after %ld ms: %s\n", static_cast<long>(took.count()),
              status.ToString().c_str());
  EXPECT_EQ(status.code(), Code::kUnavailable) << status.ToString();
  EXPECT_LT(took, kNoticedWithin);
  EXPECT_EQ(Step(layout, 10, rng).Run(*one_sided).code(), Code::kUnavailable);
}

}  // namespace
}  // namespace engram
