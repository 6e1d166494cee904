// A node tells its status in every state, and whatever its disk does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <future>
#include <thread>

#include "common/client/lookup/client.h"
#include "common/io/host_port.h"
#include "common/net/control/admin.h"
#include "common/net/tcp/transport.h"
#include "memnode/node/node.h"
#include "memnode/store/rocks_store.h"
#include "tests/memnode/procedural_source.h"
#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/eventually.h"
#include "tests/support/fakes/memory_store.h"
#include "tests/support/sockets.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;
using testing_support::Eventually;

constexpr Nanos kTimeout = std::chrono::seconds(10);

// A disk that hangs while `hangs` is set, and a store that may refuse changes.
class HangingStore final : public MemoryStore {
 public:
  struct Faults {
    std::atomic<bool> hangs = false, full = false;
  };
  explicit HangingStore(Faults& faults) : faults_(faults) {}

  Result<std::map<std::string, std::string>> ReadRecords(std::string_view prefix) override {
    Wait();
    return MemoryStore::ReadRecords(prefix);
  }
  Result<std::map<TableSetId, uint64_t>> AllPageBytes() override {
    Wait();
    return MemoryStore::AllPageBytes();
  }
  Status CheckWritable() override {
    return faults_.full ? ResourceExhausted("the disk is full") : OkStatus();
  }

 private:
  void Wait() const {
    while (faults_.hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  Faults& faults_;
};

class NodeStatusTest : public testing::Test {
 protected:
  NodeStatusTest() {
    folder_ = FreshFolder("node_status");
    config_.store_path = folder_;
    config_.control_listen = config_.http_listen = "127.0.0.1:0";
    config_.cluster_epoch = 7;
    config_.limits_drain_timeout_ms = 100;
    config_.store_scrub_mib_s = 0;
  }
  ~NodeStatusTest() override {
    faults_.hangs = false;
    node_.reset();
    std::filesystem::remove_all(folder_);
  }
  static Result<json::object> Ask(uint16_t port, const char* command = "status") {
    return net::CallNode("127.0.0.1", port, {{"command", command}}, kTimeout);
  }
  uint16_t port() const { return io::ParseHostPort(node_->control_address())->port; }
  json::object Told() const {
    const auto told = Ask(port());
    EXPECT_TRUE(told.ok()) << told.status().message();
    return told.ok() ? *told : json::object();
  }
  void Start(std::unique_ptr<RowStore> store = nullptr) {
    auto node = Node::Start(config_, nullptr, std::move(store));
    ASSERT_TRUE(node.ok()) << node.status().message();
    node_ = std::move(*node);
  }

  std::string folder_;
  NodeConfig config_;
  HangingStore::Faults faults_;
  std::unique_ptr<Node> node_;
};

TEST_F(NodeStatusTest, ANodeThatLoadsItsTablesSaysSo) {
  faults_.hangs = true;
  auto store = std::make_unique<HangingStore>(faults_);
  std::thread starting([&] { Start(std::move(store)); });
  json::object told;
  EXPECT_TRUE(Eventually([&] {
    for (const testing_support::Listener& one : testing_support::ListenersOf(::getpid())) {
      if (one.kind != testing_support::Listener::Kind::kTcp) continue;
      const auto reply = net::CallNode("127.0.0.1", static_cast<uint16_t>(one.port),
                                       {{"command", "status"}}, std::chrono::milliseconds(500));
      if (reply.ok()) told = *reply;
    }
    return !told.empty();
  }));
  faults_.hangs = false;
  starting.join();
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.at("state"), "joining");
  EXPECT_EQ(told.at("loading"), true);
  EXPECT_EQ(told.at("member"), "m0");
  EXPECT_EQ(told.at("epoch"), 7);
  EXPECT_EQ(Told().at("loading"), false);
  EXPECT_EQ(Told().at("state"), "joining") << "nothing is published";
}

TEST_F(NodeStatusTest, AStoreThatHangsIsToldAndHoldsNothingUp) {
  Start(std::make_unique<HangingStore>(faults_));
  faults_.hangs = true;
  auto stuck = std::async(std::launch::async, [&] { return Ask(port(), "versions"); });
  EXPECT_TRUE(Eventually([&] {
    return std::stoul(std::string(Told().at("store").at("waiting_ms").as_string())) >= 20;
  }));
  EXPECT_EQ(stuck.wait_for(Nanos(0)), std::future_status::timeout);
  faults_.full = true;
  faults_.hangs = false;
  EXPECT_TRUE(stuck.get().ok());
  EXPECT_TRUE(Eventually([&] { return Told().at("store").at("full").as_bool(); }));
  EXPECT_EQ(Told().at("store").at("problem"), "the disk is full");
  faults_.full = false;
  EXPECT_TRUE(Eventually([&] { return Told().at("store").at("problem") == ""; }));
}

TEST_F(NodeStatusTest, RowsAndLookupsAreCountedAndDrainingIsTold) {
  const ProceduralSource source({.layout = "v41", .rows_scale = 0.00004, .seed = 1});
  {
    auto store = OpenRocksStore(config_.store_path);
    ASSERT_TRUE(store.ok()) << store.status().message();
    ASSERT_TRUE(ImportProcedural(source, "1", config_.Map(), "m0", **store).ok());
  }
  config_.arena_budget_mib = 4;  // of 8
  config_.tiers_cache_mib = 1;
  Start();
  EXPECT_EQ(Told().at("rows"), "0") << "not published";
  json::object request = {
      {"name", "procedural"}, {"version", "1"}, {"generation", "1"}, {"command", "prepare"}};
  ASSERT_TRUE(net::CallNode("127.0.0.1", port(), request, kTimeout).ok());
  const auto prepared = [&] { return Told().at("versions").at(0).at("prepared").as_bool(); };
  ASSERT_TRUE(Eventually(prepared));
  for (const char* command : {"promise", "commit"}) {
    request["command"] = command;
    ASSERT_TRUE(net::CallNode("127.0.0.1", port(), request, kTimeout).ok());
  }

  client::LookupClientOptions options;
  options.memnodes = {node_->control_address()};
  options.identity = source.Identity("1");
  options.make_transport = [] { return net::MakeTcpTransport({}); };
  auto client = client::LookupClient::Connect(options, source.layout());
  ASSERT_TRUE(client.ok()) << client.status().message();
  const auto number = [](const json::object& of, const char* key) {
    return std::stoull(std::string(of.at(key).as_string()));
  };
  // Rows are counted a moment after they were sent: those of the client's proof come first.
  const size_t proof = (*client)->known_answers().size();
  ASSERT_TRUE(Eventually([&] { return number(Told(), "rows_sent") == proof; }));
  const json::object before = Told();
  std::vector<uint64_t> rows(100);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = i;
  std::vector<std::byte> out(rows.size() * source.row_format().row_bytes());
  const client::LayerLookup lookup{0, rows, out};
  auto ticket = (*client)->Submit({&lookup, 1}, Clock::Real().Now() + kTimeout);
  ASSERT_TRUE(ticket.ok()) << ticket.status().message();
  ASSERT_TRUE(ticket->Wait(0).ok());
  EXPECT_TRUE(
      Eventually([&] { return number(Told(), "rows_sent") == number(before, "rows_sent") + 100; }));
  const json::object told = Told();
  const auto lookups = [](const json::object& of) {
    uint64_t sum = 0;
    for (const json::value& count : of.at("service_counts").as_array()) {
      sum += std::stoull(std::string(count.as_string()));
    }
    return sum;
  };
  EXPECT_EQ(lookups(told), lookups(before) + 1);
  EXPECT_EQ(told.at("state"), "serving");
  EXPECT_EQ(told.at("why"), "");
  EXPECT_EQ(told.at("sessions"), "1");
  EXPECT_EQ(number(told, "rows"),
            std::stoull(std::string(told.at("versions").at(0).at("rows_held").as_string())));
  EXPECT_GT(number(told, "rows_in_memory"), 0u);
  EXPECT_LT(number(told, "rows_in_memory"), number(told, "rows"));
  EXPECT_GT(number(told, "partitions"), 0u);
  EXPECT_GT(number(told, "memory_bytes"), 0u);
  EXPECT_TRUE(Eventually([&] { return Told().at("store").at("bytes") != "0"; }));

  client->reset();
  node_->Drain();
  EXPECT_EQ(Told().at("state"), "draining");
}

TEST_F(NodeStatusTest, ProceduralTablesAreServedWithoutAStore) {
  config_.store_path.clear();
  config_.procedural_layout = "v41";
  config_.procedural_rows_scale = 0.00004;
  Start();
  const json::object told = Told();
  EXPECT_EQ(told.at("state"), "serving");
  EXPECT_TRUE(told.at("store").is_null());
  EXPECT_EQ(told.at("rows"), told.at("rows_in_memory"));
  EXPECT_EQ(told.at("versions").at(0).at("published"), true);
}

}  // namespace
}  // namespace engram::memnode
