// What a node says of itself, /ready and /metrics, is what a client would meet now.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "common/base/rng.h"
#include "common/client/lookup/client.h"
#include "common/net/control/admin.h"
#include "common/net/tcp/transport.h"
#include "memnode/node/node.h"
#include "memnode/store/rocks_store.h"
#include "tests/memnode/procedural_source.h"
#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/eventually.h"
#include "tests/support/http_get.h"

namespace engram::memnode {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

constexpr char kModel[] = "procedural";

class NodeStateTest : public testing::Test {
 protected:
  NodeStateTest() {
    folder_ = FreshFolder("node_state");
    config_.store_path = folder_ + "/store";
    config_.control_listen = config_.http_listen = "127.0.0.1:0";
    config_.limits_drain_timeout_ms = 100;
    config_.store_scrub_mib_s = 0;  // only what is reported
  }
  ~NodeStateTest() override {
    client_.reset();
    node_.reset();
    std::filesystem::remove_all(folder_);
  }

  static ProceduralSource Source(uint64_t seed) {
    return ProceduralSource({.layout = "v41", .rows_scale = 0.00004, .seed = seed});
  }
  // Version n has rows of seed n.
  void Import(uint64_t version) {
    auto store = OpenRocksStore(config_.store_path);
    ASSERT_TRUE(store.ok()) << store.status().message();
    const auto manifest =
        ImportProcedural(Source(version), std::to_string(version), config_.Map(), "m0", **store);
    ASSERT_TRUE(manifest.ok()) << manifest.status().message();
  }
  void Start() {
    node_.reset();
    auto node = Node::Start(config_);
    ASSERT_TRUE(node.ok()) << node.status().message();
    node_ = std::move(*node);
  }
  json::object Call(const json::object& request) const {
    const std::string address = node_->control_address();
    const size_t colon = address.rfind(':');
    const auto reply = net::CallNode(address.substr(0, colon),
                                     static_cast<uint16_t>(std::stoi(address.substr(colon + 1))),
                                     request, std::chrono::seconds(10));
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    return reply.ok() ? *reply : json::object();
  }
  // Waits for the job's end.
  void Job(const json::object& request) const {
    const json::object started = Call(request);
    if (!started.contains("job")) return;
    json::object seen;
    EXPECT_TRUE(testing_support::Eventually([&] {
      seen = Call({{"command", "job"}, {"job", started.at("job")}});
      return seen.contains("state") && seen.at("state") != "running";
    })) << "the job did not end";
    EXPECT_EQ(seen["state"], "done") << json::serialize(seen);
  }
  void Publish(const std::string& version, int generation) const {
    json::object request = {{"command", "prepare"},
                            {"name", kModel},
                            {"version", version},
                            {"generation", std::to_string(generation)}};
    Job(request);
    for (const char* command : {"promise", "commit"}) {
      request["command"] = command;
      Call(request);
    }
  }
  std::string Get(const std::string& path) const {
    return testing_support::HttpGet(node_->http_address(), path);
  }
  std::vector<std::string> PageFiles() const {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(config_.store_path)) {
      if (entry.path().extension() == ".sst" && entry.file_size() > (64 << 10)) {
        files.push_back(entry.path());
      }
    }
    return files;
  }
  // Flips a bit in one page of `every`; the same again makes them whole.
  void FlipPages(uint64_t every) const {
    for (const std::string& path : PageFiles()) {
      const uint64_t bytes = std::filesystem::file_size(path);
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      for (uint64_t at = 1000; at + 16'384 < bytes; at += every * 4096) {
        file.seekg(static_cast<std::streamoff>(at));
        const char byte = static_cast<char>(file.get() ^ 0x10);
        file.seekp(static_cast<std::streamoff>(at));
        file.put(byte);
      }
    }
  }
  Status Ask(uint64_t seed, size_t count) {
    const ProceduralSource source = Source(1);
    Rng rng(seed);
    std::vector<uint64_t> rows(count);
    for (uint64_t& row : rows) row = rng.NextBelow(source.rows(0));
    std::vector<std::byte> out(count * source.row_format().row_bytes());
    const client::LayerLookup lookup{0, rows, out};
    ASSIGN_OR_RETURN(auto ticket,
                     client_->Submit({&lookup, 1}, Clock::Real().Now() + std::chrono::seconds(20)));
    return ticket.Wait(0);
  }
  void Connect() {
    const ProceduralSource source = Source(1);
    client::LookupClientOptions options;
    options.memnodes = {node_->control_address()};
    options.identity = source.Identity("1");
    options.make_transport = [] { return net::MakeTcpTransport({}); };
    auto client = client::LookupClient::Connect(options, source.layout());
    ASSERT_TRUE(client.ok()) << client.status().message();
    client_ = std::move(*client);
  }

  std::string folder_;
  NodeConfig config_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<client::LookupClient> client_;
};

TEST_F(NodeStateTest, ANodeThatServesNothingIsNotReady) {
  Import(1);
  Start();
  EXPECT_THAT(Get("/ready"), AllOf(HasSubstr("no version is published here"), EndsWith(" 503")));
  Publish("1", 1);
  EXPECT_EQ(Get("/ready"), "ready\n 200");
}

TEST_F(NodeStateTest, APublishedVersionThatCannotBeReadIsNotReady) {
  Import(1);
  Start();
  Publish("1", 1);
  node_.reset();
  FlipPages(10);
  Start();
  EXPECT_THAT(Get("/ready"), AllOf(HasSubstr("version 1 of procedural, which is published, cannot "
                                             "be served: page "),
                                   EndsWith(" 503")));
  FlipPages(10);
  Start();
  EXPECT_EQ(Get("/ready"), "ready\n 200");
}

TEST_F(NodeStateTest, ANodeOfWhichMostLookupsFailOnBadPagesIsNotReady) {
  Import(1);
  config_.arena_budget_mib = 1;  // of 8
  config_.tiers_cache_mib = 1;
  Start();
  Publish("1", 1);
  Connect();
  EXPECT_EQ(Get("/ready"), "ready\n 200");
  FlipPages(2);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_FALSE(Ask(seed, 200).ok());
  }
  EXPECT_THAT(Get("/ready"), EndsWith(" 503"));
  EXPECT_THAT(Get("/metrics"), HasSubstr("engram_memnode_lookups_unreadable_total 20"));
}

TEST_F(NodeStateTest, GaugesOfADroppedVersionAreGone) {
  Import(1);
  Import(2);
  Start();
  Publish("1", 1);
  EXPECT_THAT(Get("/metrics"),
              HasSubstr("engram_memnode_arena_bytes{model=\"procedural\",version=\"1\"}"));
  Publish("2", 2);
  std::string metrics = Get("/metrics");
  EXPECT_THAT(metrics, AllOf(Not(HasSubstr("arena_bytes{model=\"procedural\",version=\"1\"}")),
                             HasSubstr("arena_bytes{model=\"procedural\",version=\"2\"}")))
      << "version 1 is unloaded";
  EXPECT_THAT(metrics, HasSubstr("stored_bytes{model=\"procedural\",state=\"complete\","
                                 "version=\"1\"}"));
  Job({{"command", "drop"}, {"name", kModel}, {"version", "1"}});
  std::istringstream lines(Get("/metrics"));
  for (std::string line; std::getline(lines, line);) {
    const bool counter = line.find("_total{") != std::string::npos;
    EXPECT_TRUE(counter || line.find("version=\"1\"") == std::string::npos) << line;
  }
}

TEST_F(NodeStateTest, WhatOnlyGrowsIsACounter) {
  Import(1);
  config_.arena_budget_mib = 1;
  config_.tiers_cache_mib = 1;
  Start();
  Publish("1", 1);
  const std::string metrics = Get("/metrics");
  for (const char* name :
       {"process_cpu_seconds_total", "engram_memnode_row_cache_hits_total",
        "engram_memnode_row_cache_misses_total", "engram_memnode_pages_read_total",
        "engram_memnode_partitions_moved_total"}) {
    EXPECT_THAT(metrics, HasSubstr(fmt::format("# TYPE {} counter", name)));
  }
  EXPECT_THAT(metrics, Not(testing::ContainsRegex("_total gauge")));
}

}  // namespace
}  // namespace engram::memnode
