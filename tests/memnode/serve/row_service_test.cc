// The row service over the loopback transport: right rows, every refusal, drain, overload.
#include "memnode/serve/row_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <future>
#include <map>

#include "common/base/rng.h"
#include "common/client/row_source.h"
#include "common/net/wire_encode.h"
#include "memnode/tables/arena_tables.h"
#include "tests/support/fakes/loopback_transport.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;

constexpr uint32_t kRowBytes = 264;
constexpr Nanos kPatience = std::chrono::seconds(20);

// What a client received, by request.
struct Reply {
  std::vector<net::RowsHeader> chunks;
  std::map<std::pair<uint32_t, uint32_t>, std::vector<std::byte>> rows;  // (layer, position)
  size_t chunks_before = 0;  // of other requests, before its first
  Status error;
  bool ended_by_error = false;
};

class Client : public net::TransportHandler {
 public:
  Client(net::LoopbackHub& hub, RowService& service) : transport_(hub.MakeTransport()) {
    transport_->SetHandler(this);
    const auto node = transport_->Connect(service.address());
    CHECK(node.ok());
    node_ = *node;
  }
  void OnMessage(net::PeerId, std::span<const std::byte> header,
                 std::span<const std::byte> body) override {
    if (*net::PeekType(header) == net::MessageType::kRows) return OnRows(header, body);
    const auto error = net::ParseLookupError(header, body);
    ASSERT_TRUE(error.ok()) << error.status().message();
    Reply& reply = replies[error->request_id];
    const std::string text(reinterpret_cast<const char*>(body.data()), body.size());
    reply.error = Status(static_cast<Code>(error->code), text);
    reply.ended_by_error = true;
  }
  void OnRows(std::span<const std::byte> header, std::span<const std::byte> body) {
    const auto chunk = net::ParseRows(header, body);
    ASSERT_TRUE(chunk.ok()) << chunk.status().message();
    Reply& reply = replies[chunk->request_id];
    for (uint32_t i = 0; i < chunk->row_count; ++i) {
      const auto stored = body.subspan(i * chunk->stored_row_bytes, chunk->stored_row_bytes);
      const auto row = stored.first(kRowBytes);
      const bool is_new = reply.rows
                              .emplace(std::pair(chunk->layer_index, chunk->first + i),
                                       std::vector(row.begin(), row.end()))
                              .second;
      EXPECT_TRUE(is_new) << "a row came twice";
    }
    if (reply.chunks.empty()) reply.chunks_before = chunk_count_;
    reply.chunks.push_back(*chunk);
    ++chunk_count_;
  }
  void OnPeerLost(net::PeerId, const Status&) override { node_lost = true; }

  // Ids are u64 when `id_bytes` is 8.
  void Ask(net::LookupHeader header, const std::vector<std::vector<uint64_t>>& rows_of_layer) {
    std::vector<net::LookupLayer> layers;
    std::vector<std::byte> ids;
    for (uint32_t i = 0; i < rows_of_layer.size(); ++i) {
      if (rows_of_layer[i].empty()) continue;
      layers.push_back({i, static_cast<uint32_t>(rows_of_layer[i].size())});
      for (const uint64_t row : rows_of_layer[i]) {
        const auto* bytes = reinterpret_cast<const std::byte*>(&row);
        ids.insert(ids.end(), bytes, bytes + header.id_bytes);
      }
    }
    std::vector<std::byte> message;
    net::EncodeLookup(header, layers, ids, message);
    Send(message, ids);
  }
  void Send(std::span<const std::byte> header, std::span<const std::byte> body) {
    auto buffer = transport_->AllocateSendBuffer(std::max<size_t>(body.size(), 1));
    std::copy(body.begin(), body.end(), (*buffer)->bytes().begin());
    buffers_.push_back(std::move(*buffer));
    const Status sent =
        transport_->Send(node_, header, buffers_.back().get(), body.size(), nullptr);
    ASSERT_TRUE(sent.ok()) << sent.message();
  }
  template <typename Condition>
  bool Until(Condition condition) {
    const TimePoint limit = Clock::Real().Now() + kPatience;
    while (!condition()) {
      if (Clock::Real().Now() > limit) return false;
      if (transport_->Progress() == 0) transport_->Wait(std::chrono::milliseconds(1));
    }
    return true;
  }
  // Waits until the request has `rows` rows or an error.
  Reply& Await(uint64_t request_id, size_t rows) {
    EXPECT_TRUE(Until([&] {
      const Reply& reply = replies[request_id];
      return reply.ended_by_error || reply.rows.size() == rows;
    })) << "no answer to request "
        << request_id;
    return replies[request_id];
  }
  // For requests too large to look at every row: counts those of the chunks.
  uint64_t AwaitChunks(uint64_t request_id, uint64_t rows) {
    const auto arrived = [&] {
      uint64_t count = 0;
      for (const net::RowsHeader& chunk : replies[request_id].chunks) count += chunk.row_count;
      return count;
    };
    EXPECT_TRUE(Until([&] { return arrived() >= rows; }));
    return arrived();
  }
  std::string address() const { return transport_->address(); }

  std::map<uint64_t, Reply> replies;
  bool node_lost = false;

 private:
  std::unique_ptr<net::Transport> transport_;
  std::vector<std::unique_ptr<net::SendBuffer>> buffers_;
  net::PeerId node_ = 0;
  size_t chunk_count_ = 0;
};

void FillRow(uint32_t layer, uint64_t row, std::byte* out) {
  Rng rng(Mix64(layer, row));
  for (uint32_t i = 0; i < kRowBytes; ++i) out[i] = static_cast<std::byte>(rng.NextU64());
}

// Each look at it takes a millisecond.
class TickingClock : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Nanos(now_ns_ += 1'000'000)); }

 private:
  mutable std::atomic<int64_t> now_ns_ = 1;
};

class RowServiceTest : public testing::Test {
 protected:
  RowServiceTest()
      : plan_(MakePlan()), arena_(*Arena::Allocate(plan_, {.pages = PageBacking::kSmall})) {
    for (uint32_t i = 0; i < plan_.layers.size(); ++i) {
      for (const uint32_t partition : plan_.layers[i].owned) {
        const uint64_t first = plan_.layers[i].cut.FirstRow(partition);
        std::vector<std::byte> row(kRowBytes);
        for (uint64_t k = 0; k < plan_.layers[i].cut.RowCount(partition); ++k) {
          FillRow(i, first + k, row.data());
          arena_.PutRows(i, partition, k, row);
        }
      }
    }
  }
  // Layer index 0 without its last partition, layer index 1 whole.
  static TablePlan MakePlan() {
    TablePlan plan;
    plan.row_bytes = kRowBytes;
    for (const uint64_t rows : {5'000u, 900u}) {
      LayerPlan layer;
      layer.layer_id = plan.layers.empty() ? 1 : 14;
      layer.cut = table::CutLayer(rows, kRowBytes);
      const uint32_t missing = plan.layers.empty() ? 1 : 0;
      for (uint32_t p = 0; p + missing < layer.cut.partition_count; ++p) layer.owned.push_back(p);
      plan.layers.push_back(std::move(layer));
    }
    return plan;
  }
  void Start(const Clock& clock = Clock::Real()) { Start(hub_.MakeTransport(), clock); }
  void Start(std::unique_ptr<net::Transport> transport, const Clock& clock = Clock::Real()) {
    metrics_ = std::make_unique<ServiceMetrics>(registry_);
    tables_ = MakeTables();
    auto service = RowService::Start(std::move(transport), options_, *metrics_, clock);
    ASSERT_TRUE(service.ok()) << service.status().message();
    service_ = std::move(*service);
    client_ = std::make_unique<Client>(hub_, *service_);
    const auto session = OpenSession(client_->address());
    ASSERT_TRUE(session.ok()) << session.status().message();
    session_ = *session;
  }
  Result<uint64_t> OpenSession(const std::string& address) {
    std::promise<Result<uint64_t>> opened;
    service_->OpenSession(address, tables_, [&](auto session) { opened.set_value(session); });
    return opened.get_future().get();
  }
  std::shared_ptr<const ServedTables> MakeTables() {
    const std::shared_ptr<const Arena> arena(&arena_, [](const Arena*) {});
    table::TableIdentity identity;
    identity.model = "m";
    identity.version = "1";
    auto tables = ArenaTables::Make(
        {.identity = identity, .map = {.epoch = 7, .members = {"m0"}}, .plan = plan_}, arena,
        registry_);
    EXPECT_TRUE(tables.ok()) << tables.status().message();
    return *tables;
  }
  net::LookupHeader Header(uint64_t request_id) const {
    net::LookupHeader header;
    header.session = session_;
    header.request_id = request_id;
    header.epoch = 7;
    header.budget_us = 10'000'000;
    return header;
  }
  void ExpectRefused(uint64_t request_id, Code code, const std::string& text) {
    const Reply& reply = client_->Await(request_id, SIZE_MAX);
    EXPECT_EQ(reply.error.code(), code) << reply.error.message();
    EXPECT_THAT(reply.error.message(), HasSubstr(text));
    EXPECT_TRUE(reply.rows.empty());
  }
  // The service is well: a lookup is answered right.
  void ExpectServes(uint64_t request_id) {
    client_->Ask(Header(request_id), {{4}, {8}});
    const Reply& reply = client_->Await(request_id, 2);
    EXPECT_EQ(reply.rows.size(), 2u) << reply.error.message();
  }

  const TickingClock ticking_;  // outlives the service
  net::LoopbackHub hub_;
  const TablePlan plan_;
  Arena arena_;
  RowServiceOptions options_;
  obs::Metrics registry_;
  std::unique_ptr<ServiceMetrics> metrics_;
  std::shared_ptr<const ServedTables> tables_;
  std::unique_ptr<RowService> service_;
  std::unique_ptr<Client> client_;
  uint64_t session_ = 0;
};

TEST_F(RowServiceTest, EveryRowOnceEarliestLayerFirst) {
  Start();
  Rng rng(1);
  std::vector<std::vector<uint64_t>> rows(2);
  for (int i = 0; i < 3000; ++i) rows[0].push_back(rng.NextBelow(4000));
  for (int i = 0; i < 700; ++i) rows[1].push_back(rng.NextBelow(900));
  for (const uint8_t id_bytes : {uint8_t{4}, uint8_t{8}}) {
    net::LookupHeader header = Header(id_bytes);
    header.id_bytes = id_bytes;
    client_->Ask(header, rows);
    const Reply& reply = client_->Await(id_bytes, 3700);
    ASSERT_EQ(reply.rows.size(), 3700u) << reply.error.message();
    std::vector<std::byte> expected(kRowBytes);
    for (const auto& [where, bytes] : reply.rows) {
      FillRow(where.first, rows[where.first][where.second], expected.data());
      ASSERT_EQ(bytes, expected);
    }
    EXPECT_EQ(reply.chunks.size(), 7u + 2u) << "of at most 480 rows";
    for (size_t i = 1; i < reply.chunks.size(); ++i) {
      EXPECT_GE(reply.chunks[i].layer_index, reply.chunks[i - 1].layer_index);
    }
  }
  EXPECT_EQ(metrics_->requests.Value(), 2);
  EXPECT_THAT(
      registry_.Text(),
      HasSubstr("engram_memnode_rows_served_total{layer=\"14\",model=\"m\",version=\"1\"} 1400"));
}

TEST_F(RowServiceTest, RowsNotHereAreRefusedAsAWhole) {
  Start();
  client_->Ask(Header(1), {{0, 5000}, {}});
  ExpectRefused(1, Code::kOutOfRange, "row 5000 of layer 1, which has 5000 rows");
  client_->Ask(Header(2), {{0, 4999}, {}});
  ExpectRefused(2, Code::kFailedPrecondition, "row 4999 of layer 1");
  client_->Ask(Header(3), {{0}, {0}, {0}});
  ExpectRefused(3, Code::kOutOfRange, "layer index 2");
  net::LookupHeader wide = Header(4);
  wide.id_bytes = 8;
  client_->Ask(wide, {{(uint64_t{1} << 32) + 1}});  // must not be taken for row 1
  ExpectRefused(4, Code::kOutOfRange, "row 4294967297");
  ExpectServes(5);
  EXPECT_EQ(metrics_->errors[static_cast<size_t>(Code::kOutOfRange)]->Value(), 3);
}

TEST_F(RowServiceTest, AnotherSessionOrEpochIsRefused) {
  Start();
  net::LookupHeader header = Header(1);
  header.session ^= 1;
  client_->Ask(header, {{0}});
  ExpectRefused(1, Code::kFailedPrecondition, "session");
  header = Header(2);
  header.epoch = 8;
  client_->Ask(header, {{0}});
  ExpectRefused(2, Code::kFailedPrecondition, "epoch 8, its session is of epoch 7");
  ExpectServes(3);
}

TEST_F(RowServiceTest, ASessionIsGoodOnItsOwnConnectionOnly) {
  Start();
  Client thief(hub_, *service_);
  ASSERT_TRUE(OpenSession(thief.address()).ok());
  thief.Ask(Header(1), {{0}});  // with the other's session
  EXPECT_EQ(thief.Await(1, 1).error.code(), Code::kFailedPrecondition);
}

TEST_F(RowServiceTest, MalformedMessagesAreRefusedAndHarmless) {
  Start();
  net::LookupHeader header = Header(1);
  std::vector<std::byte> message, ids(8);
  const std::vector<net::LookupLayer> layers = {{0, 2}};
  net::EncodeLookup(header, layers, ids, message);
  client_->Send(message, std::span(ids).first(4));  // fewer ids than promised
  ExpectRefused(1, Code::kInvalidArgument, "body of 4 bytes");
  header.request_id = 2;
  net::EncodeLookup(header, layers, ids, message);
  ids[3] = std::byte{1};  // damaged after its CRC was taken
  client_->Send(message, ids);
  ExpectRefused(2, Code::kDataLoss, "CRC");
  Rng rng(5);
  for (int i = 0; i < 200; ++i) {  // noise of any length, also shorter than any header
    std::vector<std::byte> noise(rng.NextBelow(100));
    for (std::byte& byte : noise) byte = static_cast<std::byte>(rng.NextU64());
    client_->Send(noise, noise);
  }
  ExpectServes(3);
}

TEST_F(RowServiceTest, SpentBudgetIsRefused) {
  Start();
  net::LookupHeader header = Header(1);
  header.budget_us = 0;
  client_->Ask(header, {{0}});
  ExpectRefused(1, Code::kDeadlineExceeded, "no time left");
}

TEST_F(RowServiceTest, BudgetSpentWhileWaitingEndsTheLookup) {
  Start(ticking_);
  net::LookupHeader header = Header(1);
  header.budget_us = 500;
  client_->Ask(header, {{0}});
  ExpectRefused(1, Code::kDeadlineExceeded, "500 us were not enough");
  header = Header(2);  // 4 chunks, the budget is good for about two
  header.budget_us = 2500;
  client_->Ask(header, {std::vector<uint64_t>(1900, 3)});
  const Reply& reply = client_->Await(2, 1900);
  EXPECT_EQ(reply.error.code(), Code::kDeadlineExceeded);
}

TEST_F(RowServiceTest, AClientBeyondItsWindowIsRefusedAndRecovers) {
  options_.window = 2;
  Start();
  hub_.Stop(service_->address());
  for (uint64_t id = 1; id <= 4; ++id) client_->Ask(Header(id), {{id}});
  hub_.Resume(service_->address());  // all four arrive in one go
  EXPECT_EQ(client_->Await(1, 1).rows.size(), 1u);
  EXPECT_EQ(client_->Await(2, 1).rows.size(), 1u);
  ExpectRefused(3, Code::kResourceExhausted, "limits.window");
  ExpectRefused(4, Code::kResourceExhausted, "2 lookups of this client wait");
  ExpectServes(5);
}

TEST_F(RowServiceTest, DrainingRefusesNewLookupsAndSessions) {
  Start();
  ExpectServes(1);
  service_->Drain();
  client_->Ask(Header(2), {{0}});
  ExpectRefused(2, Code::kCancelled, "shutting down");
  EXPECT_EQ(OpenSession(client_->address()).status().code(), Code::kUnavailable);
  EXPECT_EQ(service_->session_count(), 1u);
}

TEST_F(RowServiceTest, SessionsAreLimited) {
  options_.sessions_max = 2;
  Start();
  const Client second(hub_, *service_), third(hub_, *service_);
  const auto session = OpenSession(second.address());
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(OpenSession(third.address()).status().code(), Code::kResourceExhausted);
  service_->CloseSession(*session);
  EXPECT_TRUE(OpenSession(third.address()).ok()) << "a place is free again";
}

TEST_F(RowServiceTest, ClosedSessionIsDisconnected) {
  Start();
  service_->CloseSession(session_);
  EXPECT_TRUE(client_->Until([&] { return client_->node_lost; }));
  EXPECT_EQ(service_->session_count(), 0u);
}

TEST_F(RowServiceTest, AClientThatDiesLeavesOthersServed) {
  Start();
  {
    Client other(hub_, *service_);
    const auto session = OpenSession(other.address());
    ASSERT_TRUE(session.ok());
    net::LookupHeader header = Header(1);
    header.session = *session;
    for (int i = 0; i < 20; ++i) other.Ask(header, {std::vector<uint64_t>(2000, 9)});
  }
  ExpectServes(2);
  EXPECT_TRUE(client_->Until([&] { return service_->session_count() == 1; }));
}

// A loopback transport whose sends to its first peer never complete until that peer is given up.
class StuckTransport : public net::Transport {
 public:
  explicit StuckTransport(std::unique_ptr<net::Transport> real) : real_(std::move(real)) {}
  std::string name() const override { return real_->name(); }
  std::string address() const override { return real_->address(); }
  std::string settings() const override { return real_->settings(); }
  void SetHandler(net::TransportHandler* handler) override { real_->SetHandler(handler); }
  Result<std::unique_ptr<net::DialedPeer>> Dial(const std::string& address,
                                                Nanos timeout) const override {
    return real_->Dial(address, timeout);
  }
  Result<net::PeerId> Attach(std::unique_ptr<net::DialedPeer> dialed) override {
    auto peer = real_->Attach(std::move(dialed));
    if (peer.ok() && stuck_ == 0) stuck_ = *peer;
    return peer;
  }
  Result<std::unique_ptr<net::SendBuffer>> AllocateSendBuffer(size_t size_bytes) override {
    return real_->AllocateSendBuffer(size_bytes);
  }
  Status Send(net::PeerId to, std::span<const std::byte> header, net::SendBuffer* body,
              size_t body_bytes, std::function<void(Status)> done) override {
    if (to != stuck_) return real_->Send(to, header, body, body_bytes, std::move(done));
    waiting_.push_back(std::move(done));
    return OkStatus();
  }
  int Progress() override {
    for (auto& done : std::exchange(cancelled_, {})) done(Cancelled("given up"));
    return real_->Progress();
  }
  void Wait(Nanos timeout) override { real_->Wait(timeout); }
  void WakeUp() override { real_->WakeUp(); }
  void Disconnect(net::PeerId peer) override {
    if (peer == stuck_) cancelled_.swap(waiting_);
    real_->Disconnect(peer);
  }

 private:
  std::unique_ptr<net::Transport> real_;
  net::PeerId stuck_ = 0;
  std::vector<std::function<void(Status)>> waiting_, cancelled_;
};

TEST_F(RowServiceTest, AClientThatTakesNoDataIsCutOffForTheOthers) {
  options_.send_buffers = 2;
  options_.send_stall_max = std::chrono::milliseconds(20);
  Start(std::make_unique<StuckTransport>(hub_.MakeTransport()));
  Client other(hub_, *service_);
  const auto session = OpenSession(other.address());
  ASSERT_TRUE(session.ok());
  client_->Ask(Header(1), {std::vector<uint64_t>(2000, 9)});  // five chunks, two buffers
  net::LookupHeader header = Header(2);
  header.session = *session;
  other.Ask(header, {{4, 5, 6}});
  EXPECT_EQ(other.Await(2, 3).rows.size(), 3u);
  EXPECT_TRUE(client_->Until([&] { return client_->node_lost; }));
  EXPECT_EQ(metrics_->peers_given_up.Value(), 1);
}

TEST_F(RowServiceTest, ADecodeStepGoesBeforeAPrefillBurst) {
  Start();
  hub_.Stop(service_->address());
  net::LookupHeader prefill = Header(1);
  prefill.priority = static_cast<uint8_t>(client::Priority::kPrefill);
  for (uint64_t id = 1; id <= 4; ++id) {
    prefill.request_id = id;
    client_->Ask(prefill, {std::vector<uint64_t>(20'000, 3)});
  }
  client_->Ask(Header(9), {{1, 2, 3}});
  hub_.Resume(service_->address());
  for (uint64_t id = 1; id <= 4; ++id) EXPECT_EQ(client_->AwaitChunks(id, 20'000), 20'000u);
  EXPECT_LE(client_->replies[9].chunks_before, 1u) << "what was under way when it arrived";
}

TEST_F(RowServiceTest, RequestsOfOnePriorityTakeTurns) {
  Start();
  hub_.Stop(service_->address());
  client_->Ask(Header(1), {std::vector<uint64_t>(60'000, 3)});
  client_->Ask(Header(2), {{1, 2, 3}});
  hub_.Resume(service_->address());
  EXPECT_EQ(client_->AwaitChunks(1, 60'000), 60'000u);
  EXPECT_LE(client_->replies[2].chunks_before, 8u) << "of 125";
}

TEST_F(RowServiceTest, ALayerPastItsOwnDeadlineIsLeftOut) {
  Start(ticking_);
  net::LookupHeader header = Header(1);
  std::vector<std::byte> message, ids(4 * 500 + 4 * 2);
  std::vector<net::LookupLayer> layers = {{0, 500, 500}, {1, 2, 0}};  // half a tick; none
  net::EncodeLookup(header, layers, ids, message);
  client_->Send(message, ids);
  const Reply& reply = client_->Await(1, 2);
  EXPECT_EQ(reply.rows.size(), 2u) << reply.error.message();
  EXPECT_EQ(reply.rows.begin()->first.first, 1u) << "of the layer that was in time";
  EXPECT_EQ(metrics_->layers_late.Value(), 1);
}

}  // namespace
}  // namespace engram::memnode
