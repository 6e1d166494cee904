// A node whose log is not read goes on, and one whose data thread is held says so.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <future>
#include <thread>

#include "common/client/lookup/client.h"
#include "common/io/host_port.h"
#include "common/net/control/admin.h"
#include "common/net/tcp/transport.h"
#include "memnode/node/node.h"
#include "tests/memnode/procedural_source.h"
#include "tests/memnode/tiny_checkpoint.h"
#include "tests/support/fakes/memory_store.h"
#include "tests/support/http_get.h"
#include "tests/support/process.h"
#include "tests/support/sockets.h"

namespace engram::memnode {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing_support::HttpGet;
using testing_support::Process;
using testing_support::ValueOf;

class StuckNode : public testing::Test {
 protected:
  void SetUp() override { folder_ = FreshFolder("stuck_node"); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static NodeConfig ProceduralConfig() {
    NodeConfig config;
    config.procedural_layout = "paper";
    config.procedural_rows_scale = 0.0001;
    config.control_listen = config.http_listen = "127.0.0.1:0";
    return config;
  }
  static Result<json::object> Call(const std::string& address, const json::object& request) {
    const io::HostPort control = *io::ParseHostPort(address);
    return net::CallNode(control.host, control.port, request, 20s);
  }
  static Result<std::unique_ptr<client::LookupClient>> Connect(const std::string& address,
                                                               const table::TableIdentity& identity,
                                                               const table::TableLayout& layout) {
    client::LookupClientOptions options;
    options.memnodes = {address};
    options.identity = identity;
    options.make_transport = [] { return net::MakeTcpTransport({}); };
    return client::LookupClient::Connect(options, layout);
  }

  std::string folder_;
};

TEST_F(StuckNode, ServesAndEndsWhileItsLogIsNotRead) {
  const std::string fifo = folder_ + "/log";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const int reader = ::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  ASSERT_GE(::fcntl(reader, F_SETPIPE_SZ, 4096), 4096);  // full before the node is ready
  Process node("node",
               {"/bin/bash", "-c", "exec \"$@\" 2>\"$0\"", fifo,
                std::string(ENGRAM_BIN_DIR) + "/engram-memnode", "--set", "log.level=debug",
                "--set", "procedural.layout=paper", "--set", "procedural.rows_scale=0.0001",
                "--set", "control.listen=127.0.0.1:0", "--set", "http.listen=127.0.0.1:0"},
               folder_);
  const std::string ready = node.WaitLine("ready ", 30s);
  ASSERT_NE(ready, "");
  size_t sockets = 0;
  for (const auto& listener : testing_support::ListenersOf(node.pid())) {
    if (listener.kind != testing_support::Listener::Kind::kTcp) continue;
    ++sockets;
    for (int i = 0; i < 200; ++i) {
      testing_support::RawConnection stranger(listener);
      stranger.Send("garbage that is no opening of any protocol here, and long enough to be read");
    }
  }
  EXPECT_EQ(sockets, 3u);
  const std::string http = ValueOf(ready, "http");
  EXPECT_EQ(HttpGet(http, "/health"), "alive\n 200");
  EXPECT_EQ(HttpGet(http, "/ready"), "ready\n 200");
  node.Signal(SIGTERM);
  EXPECT_EQ(node.WaitExit(20s), 0);
  ::close(reader);
}

// The real TCP wire, whose Progress waits while `held`.
class HeldTransport : public net::Transport {
 public:
  HeldTransport(std::unique_ptr<net::Transport> real, std::atomic<bool>& held)
      : real_(std::move(real)), held_(held) {}
  std::string name() const override { return real_->name(); }
  std::string address() const override { return real_->address(); }
  std::string settings() const override { return real_->settings(); }
  void SetHandler(net::TransportHandler* handler) override { real_->SetHandler(handler); }
  Result<std::unique_ptr<net::DialedPeer>> Dial(const std::string& address,
                                                Nanos timeout) const override {
    return real_->Dial(address, timeout);
  }
  Result<net::PeerId> Attach(std::unique_ptr<net::DialedPeer> dialed) override {
    return real_->Attach(std::move(dialed));
  }
  Result<std::unique_ptr<net::SendBuffer>> AllocateSendBuffer(size_t size_bytes) override {
    return real_->AllocateSendBuffer(size_bytes);
  }
  Status Send(net::PeerId to, std::span<const std::byte> header, net::SendBuffer* body,
              size_t body_bytes, std::function<void(Status)> done) override {
    return real_->Send(to, header, body, body_bytes, std::move(done));
  }
  int Progress() override {
    held_.wait(true);
    return real_->Progress();
  }
  void Wait(Nanos timeout) override { real_->Wait(timeout); }
  void WakeUp() override { real_->WakeUp(); }
  void Disconnect(net::PeerId peer) override { real_->Disconnect(peer); }

 private:
  std::unique_ptr<net::Transport> real_;
  std::atomic<bool>& held_;
};

TEST_F(StuckNode, HealthTellsOfADataThreadThatStandsStillAndOfItsReturn) {
  NodeConfig config = ProceduralConfig();
  config.limits_stuck_ms = 200;
  std::atomic<bool> held = false;
  auto node = Node::Start(config, [&]() -> Result<std::unique_ptr<net::Transport>> {
    ASSIGN_OR_RETURN(auto real, net::MakeTcpTransport({}));
    return std::unique_ptr<net::Transport>(new HeldTransport(std::move(real), held));
  });
  ASSERT_TRUE(node.ok()) << node.status().message();
  const auto until = [&](const std::string& expected) {
    std::string last;
    const TimePoint end = Clock::Real().Now() + 20s;
    while (last.find(expected) == std::string::npos && Clock::Real().Now() < end) {
      last = HttpGet((*node)->http_address(), "/health");
    }
    return last;
  };
  EXPECT_THAT(until("alive\n 200"), HasSubstr("alive\n 200"));
  held = true;
  EXPECT_THAT(until(" 503"), HasSubstr("data thread 0 has stood still for "));
  held = false;
  held.notify_all();
  EXPECT_THAT(until("alive\n 200"), HasSubstr("alive\n 200"));
}

TEST_F(StuckNode, AHelloWaitsForItsDataThreadAndNothingElseDoes) {
  std::atomic<bool> held = false;
  auto node = Node::Start(ProceduralConfig(), [&]() -> Result<std::unique_ptr<net::Transport>> {
    net::TcpOptions options;
    options.listen_host = "127.0.0.1";
    ASSIGN_OR_RETURN(auto real, net::MakeTcpTransport(options));
    return std::unique_ptr<net::Transport>(new HeldTransport(std::move(real), held));
  });
  ASSERT_TRUE(node.ok()) << node.status().message();
  held = true;
  const table::ProceduralSpec spec = ProceduralConfig().Procedural();
  const table::TableLayout layout = *table::MakeProceduralLayout(spec);
  auto connected = std::async(std::launch::async, [&] {
    return Connect((*node)->control_address(), (*node)->identity(), layout);
  });
  while ((*node)->session_count() == 0 && connected.wait_for(1ms) == std::future_status::timeout) {
  }
  EXPECT_THAT(Call((*node)->control_address(), {{"command", "versions"}}).status().message(),
              HasSubstr("nothing to administer"));
  EXPECT_EQ(HttpGet((*node)->http_address(), "/ready"), "ready\n 200");
  EXPECT_EQ(connected.wait_for(0s), std::future_status::timeout);
  held = false;
  held.notify_all();
  const auto client = connected.get();
  EXPECT_TRUE(client.ok()) << client.status().message();
}

// Whose reads of a page and writes of records wait while it is held.
class HeldStore : public MemoryStore {
 public:
  void Hold() { held_ = true; }
  void LetGo() {
    held_ = false;
    held_.notify_all();
  }
  void AwaitCall() const { waiting_.wait(0); }
  Status WriteRecords(std::span<const RecordChange> changes) override {
    WaitWhileHeld();
    return MemoryStore::WriteRecords(changes);
  }
  Status ReadPage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                  std::string* bytes) override {
    WaitWhileHeld();
    return MemoryStore::ReadPage(table_set, layer_index, page, bytes);
  }

 private:
  void WaitWhileHeld() {
    if (!held_) return;
    ++waiting_;
    waiting_.notify_all();
    held_.wait(true);
    --waiting_;
  }

  std::atomic<bool> held_ = false;
  std::atomic<int> waiting_ = 0;
};

TEST_F(StuckNode, ClientsAreWelcomedAndReadyAnswersWhileAToolWaitsForTheStore) {
  auto made = std::make_unique<HeldStore>();
  HeldStore& store = *made;
  const ProceduralSource source({.layout = "paper", .rows_scale = 0.0001});
  ASSERT_TRUE(ImportProcedural(source, "1", {.members = {"m0"}}, "m0", store).ok());
  NodeConfig config;
  config.model_name = "procedural";
  config.control_listen = config.http_listen = "127.0.0.1:0";
  config.store_scrub_mib_s = 0;
  const auto node = Node::Start(config, nullptr, std::move(made));
  ASSERT_TRUE(node.ok()) << node.status().message();
  const std::string control = (*node)->control_address();
  json::object pin = {{"command", "pin"}, {"name", "procedural"}, {"version", "1"}};
  ASSERT_TRUE(Call(control, pin).ok());
  const auto versions = [&] { return Call(control, {{"command", "versions"}}); };
  while (!versions()->at("versions").at(0).at("pinned").as_bool()) std::this_thread::yield();
  json::object read = pin, write = pin;
  read["command"] = "row";
  read["layer"] = std::to_string((*node)->plan().layers[0].layer_id);
  read["row"] = "0";
  write["command"] = "unpin";
  for (const json::object& request : {read, write}) {
    store.Hold();
    auto tool = std::async(std::launch::async, [&] { return Call(control, request); });
    store.AwaitCall();
    const auto client = Connect(control, source.Identity("1"), source.layout());
    EXPECT_TRUE(client.ok()) << client.status().message();
    EXPECT_EQ(HttpGet((*node)->http_address(), "/ready"), "ready\n 200");
    EXPECT_EQ(tool.wait_for(0s), std::future_status::timeout);
    store.LetGo();
    const auto reply = tool.get();
    EXPECT_TRUE(reply.ok()) << reply.status().message();
  }
}

}  // namespace
}  // namespace engram::memnode
