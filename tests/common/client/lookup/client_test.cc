// The lookup client against one to three small memory nodes in this process, with every fault the
// loopback transport can make: right rows or a clear error, in time, and nothing else.
#include "common/client/lookup/client.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/common/client/lookup/fake_cluster.h"

namespace engram::client {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TimePoint Soon() { return Clock::Real().Now() + std::chrono::seconds(20); }
TimePoint Shortly() { return Clock::Real().Now() + std::chrono::milliseconds(300); }

// A row of layer 0 that `member` owns.
uint64_t RowOwnedBy(const table::ClusterMap& map, uint32_t member) {
  const table::OwnerTable owners = TestOwners(map);
  for (uint64_t row = 0; row < 4000; ++row) {
    if (OwnsRow(owners, member, 0, row)) return row;
  }
  CHECK(false) << "no row";
  return 0;
}

class LookupClientNodes : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Count, LookupClientNodes, testing::Values(1, 2, 3));

TEST_P(LookupClientNodes, RowsAreRightAndCountsExact) {
  FakeCluster cluster(GetParam());
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  std::vector<uint64_t> lookups_before;
  for (const auto& node : cluster.nodes) lookups_before.push_back(node->lookups());
  uint64_t asked = 0, distinct = 0;
  for (uint64_t step = 0; step < 30; ++step) {
    Lookup lookup(step, 1 + step * 11, step % 2 == 0 ? 4000 : 60);
    auto ticket = client->Submit(lookup.Layers(), Soon());
    ASSERT_TRUE(ticket.ok()) << ticket.status().ToString();
    for (const uint32_t layer : {0u, 1u}) {
      const Status status = ticket->Wait(layer);
      ASSERT_TRUE(status.ok()) << status.ToString();
      EXPECT_TRUE(ticket->Ready(layer));
      EXPECT_TRUE(lookup.Right(layer));
    }
    EXPECT_TRUE(ticket->Wait(0).ok()) << "again";
    asked += lookup.rows[0].size() + lookup.rows[1].size();
    distinct += lookup.Distinct();
  }
  const SourceStats stats = client->stats();
  EXPECT_EQ(stats.rows_asked, asked);
  EXPECT_EQ(stats.rows_distinct, distinct);
  ASSERT_EQ(stats.nodes.size(), cluster.nodes.size());
  uint64_t fetched = 0;
  for (size_t i = 0; i < stats.nodes.size(); ++i) {
    EXPECT_EQ(stats.nodes[i].name, cluster.map.members[i]);
    EXPECT_EQ(stats.nodes[i].bytes_fetched, stats.nodes[i].rows_fetched * (kRowBytes + 4));
    EXPECT_EQ(stats.nodes[i].requests, cluster.nodes[i]->lookups() - lookups_before[i]);
    EXPECT_LE(stats.nodes[i].requests, 30u) << "one request a step and node";
    fetched += stats.nodes[i].rows_fetched;
  }
  EXPECT_EQ(fetched, distinct);
  EXPECT_EQ(client->messages_dropped(), 0u);
}

TEST_P(LookupClientNodes, FourThreadsGetTheirOwnRows) {
  FakeCluster cluster(GetParam());
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (uint64_t step = 0; step < 25; ++step) {
        Lookup lookup(thread * 1000 + step, 64);
        auto ticket = client->Submit(lookup.Layers(), Soon());
        if (!ticket.ok() || !ticket->Wait(1).ok() || !ticket->Wait(0).ok()) return;
        if (lookup.Right(0) && lookup.Right(1)) right.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right.load(), 100);
}

TEST(LookupClient, NodesMayBeNamedInAnyOrder) {
  FakeCluster cluster(3);
  for (const size_t i : {2u, 0u, 1u}) cluster.StartNode(cluster.BehaviourOf(i));
  const auto client = cluster.MustConnect();
  Lookup lookup(1, 200);
  auto ticket = *client->Submit(lookup.Layers(), Soon());
  ASSERT_TRUE(ticket.Wait(0).ok());
  EXPECT_TRUE(lookup.Right(0));
  ASSERT_TRUE(ticket.Wait(1).ok());
  EXPECT_GT(ticket.took(), Nanos::zero());
  EXPECT_EQ(client->identity().content_digest, std::string(64, 'd'));
}

TEST(LookupClient, EmptyLayersAreReadyAtOnce) {
  FakeCluster cluster(1);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  Lookup lookup(1, 0);
  auto ticket = *client->Submit(lookup.Layers(), Soon());
  EXPECT_TRUE(ticket.Ready(0));
  EXPECT_TRUE(ticket.Wait(1).ok());
  EXPECT_EQ(ticket.Wait(2).code(), Code::kInvalidArgument);
}

TEST(LookupClient, MoreRowsThanOneMessageHoldsAreSplit) {
  FakeCluster cluster(1);
  auto behaviour = cluster.BehaviourOf(0);
  behaviour.chunk_rows = 480;
  cluster.StartNode(behaviour);
  const auto client = cluster.MustConnect();
  const uint64_t before = cluster.nodes[0]->lookups();
  Lookup lookup(3, 70'000, 4000);  // few distinct: still one message
  ASSERT_TRUE((*client->Submit(lookup.Layers(), Soon())).Wait(1).ok());
  EXPECT_TRUE(lookup.Right(1));
  EXPECT_EQ(cluster.nodes[0]->lookups() - before, 1u);
}

TEST(LookupClient, BadLookupsAreRefusedBeforeAnythingIsSent) {
  FakeCluster cluster(1);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  const uint64_t before = cluster.nodes[0]->lookups();
  Lookup lookup(1, 5);
  lookup.rows[0][3] = 4000;
  const auto late = client->Submit(lookup.Layers(), Soon());
  EXPECT_EQ(late.status().code(), Code::kOutOfRange);
  EXPECT_THAT(late.status().message(), AllOf(HasSubstr("row 4000"), HasSubstr("4000 rows")));
  Lookup good(1, 5);
  auto layers = good.Layers();
  layers[1].layer_index = 2;
  EXPECT_EQ(client->Submit(layers, Soon()).status().code(), Code::kInvalidArgument);
  layers[1].layer_index = 0;
  EXPECT_EQ(client->Submit(layers, Soon()).status().code(), Code::kInvalidArgument);
  layers = good.Layers();
  layers[0].out = layers[0].out.first(10);
  EXPECT_EQ(client->Submit(layers, Soon()).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(cluster.nodes[0]->lookups(), before);
  EXPECT_EQ(client->stats().rows_asked, 0u);
}

TEST(LookupClient, TheRequestLimitIsKept) {
  FakeCluster cluster(2);
  cluster.StartAll();
  cluster.options.inflight_requests_max = 2;
  const auto client = cluster.MustConnect();
  cluster.hub.Stop(cluster.nodes[0]->transport_address());
  cluster.hub.Stop(cluster.nodes[1]->transport_address());
  Lookup first(1, 100), second(2, 100);
  auto held = client->Submit(first.Layers(), Soon());
  ASSERT_TRUE(held.ok());
  const auto refused = client->Submit(second.Layers(), Soon());
  EXPECT_EQ(refused.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(refused.status().message(), HasSubstr("limit of 2"));
  for (const auto& node : cluster.nodes) cluster.hub.Resume(node->transport_address());
  EXPECT_TRUE(held->Wait(0).ok());
}

TEST(LookupClient, DroppedRepliesEndAtTheDeadlineNamingTheNode) {
  FakeCluster cluster(2);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  cluster.hub.DropNext(cluster.nodes[1]->transport_address(), 1'000'000);
  Lookup lookup(4, 100);
  auto ticket = *client->Submit(lookup.Layers(), Shortly());
  const Status status = ticket.Wait(0);
  EXPECT_EQ(status.code(), Code::kDeadlineExceeded);
  EXPECT_THAT(status.message(), AllOf(HasSubstr(fmt::format("m1 ({}", cluster.nodes[1]->address())),
                                      HasSubstr("of layer 1 are missing")));
  EXPECT_EQ(ticket.Wait(0).code(), Code::kDeadlineExceeded) << "again";
}

TEST(LookupClient, HeldRepliesArriveWhenReleased) {
  FakeCluster cluster(2);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  const std::string slow = cluster.nodes[0]->transport_address();
  cluster.hub.Hold(slow);
  Lookup lookup(5, 100);
  auto ticket = *client->Submit(lookup.Layers(), Soon());
  while (cluster.hub.HeldCount(slow) == 0) std::this_thread::yield();
  EXPECT_FALSE(ticket.Ready(0));
  cluster.hub.Release(slow);
  EXPECT_TRUE(ticket.Wait(0).ok());
  EXPECT_TRUE(ticket.Wait(1).ok());
  EXPECT_TRUE(lookup.Right(0) && lookup.Right(1));
}

TEST(LookupClient, LateRepliesNeverTouchABufferGivenUp) {
  FakeCluster cluster(1);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  const std::string slow = cluster.nodes[0]->transport_address();
  Lookup abandoned(6, 100), late(7, 100);
  cluster.hub.Hold(slow);
  { auto ticket = *client->Submit(abandoned.Layers(), Soon()); }
  auto ticket = *client->Submit(late.Layers(), Shortly());
  EXPECT_EQ(ticket.Wait(0).code(), Code::kDeadlineExceeded);
  EXPECT_EQ(ticket.Wait(1).code(), Code::kDeadlineExceeded);
  while (cluster.nodes[0]->rows_asked() < abandoned.Distinct() + late.Distinct()) {
    std::this_thread::yield();
  }
  cluster.hub.Release(slow);
  Lookup after(8, 10);
  EXPECT_TRUE((*client->Submit(after.Layers(), Soon())).Wait(1).ok());
  EXPECT_TRUE(abandoned.Untouched());
  EXPECT_TRUE(late.Untouched());
  EXPECT_TRUE(after.Right(1));
}

TEST(LookupClient, CorruptedRepliesAreDataLossAndNeverRows) {
  FakeCluster cluster(2);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  cluster.hub.CorruptNext(cluster.nodes[0]->transport_address(), 1);
  Lookup lookup(9, 100);
  auto ticket = *client->Submit(lookup.Layers(), Soon());
  const Status status = ticket.Wait(0);
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("m0 ("), HasSubstr("damaged"), HasSubstr("missing")));
  Lookup next(10, 100);
  auto again = *client->Submit(next.Layers(), Soon());
  EXPECT_TRUE(again.Wait(0).ok());
  EXPECT_TRUE(next.Right(0));
}

TEST(LookupClient, RepeatedChunksAreAnError) {
  FakeCluster cluster(1);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  cluster.hub.DuplicateNext(cluster.nodes[0]->transport_address(), 1);
  Lookup lookup(11, 100);
  auto ticket = *client->Submit(lookup.Layers(), Soon());
  const Status status = ticket.Wait(0);
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("twice"));
}

TEST(LookupClient, ChunksOfAFinishedRequestAreDroppedAndCounted) {
  FakeCluster cluster(1);
  auto behaviour = cluster.BehaviourOf(0);
  behaviour.chunk_rows = 480;
  cluster.StartNode(behaviour);
  const auto client = cluster.MustConnect();
  cluster.hub.DuplicateNext(cluster.nodes[0]->transport_address(), 1);
  Lookup one(12, 1);
  one.rows[1].clear();
  one.Resize();
  ASSERT_TRUE((*client->Submit(one.Layers(), Soon())).Wait(0).ok());
  Lookup next(13, 1);
  ASSERT_TRUE((*client->Submit(next.Layers(), Soon())).Wait(1).ok());
  EXPECT_TRUE(one.Right(0) && next.Right(1));
  EXPECT_EQ(client->messages_dropped(), 1u);
}

TEST(LookupClient, ChunksThatWereNotAskedForAreAnError) {
  FakeCluster cluster(1);
  auto behaviour = cluster.BehaviourOf(0);
  behaviour.shift_first = 1;
  cluster.StartNode(behaviour);
  const auto client = cluster.Connect();
  EXPECT_EQ(client.status().code(), Code::kDataLoss);
  EXPECT_THAT(client.status().message(), HasSubstr("not asked for"));
}

TEST(LookupClient, RefusedLookupsCarryTheNodesReason) {
  FakeCluster cluster(1);
  auto behaviour = cluster.BehaviourOf(0);
  behaviour.refuse_lookups = FailedPrecondition("draining");
  cluster.StartNode(behaviour);
  const auto client = cluster.Connect();
  EXPECT_EQ(client.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(client.status().message(), AllOf(HasSubstr("m0 ("), HasSubstr("draining")));
}

TEST(LookupClient, AKilledNodeFailsItsRowsAtOnceAndLaterLookupsToo) {
  FakeCluster cluster(2);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  const std::string victim = cluster.nodes[1]->transport_address();
  cluster.hub.Stop(victim);
  Lookup lookup(14, 100);
  auto ticket = *client->Submit(lookup.Layers(), Soon());
  cluster.hub.Kill(victim);
  const Status status = ticket.Wait(0);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), AllOf(HasSubstr(fmt::format("m1 ({}", cluster.nodes[1]->address())),
                                      HasSubstr("gone"), HasSubstr("missing")));
  const auto later = client->Submit(lookup.Layers(), Soon());
  EXPECT_EQ(later.status().code(), Code::kUnavailable);
  EXPECT_THAT(later.status().message(), HasSubstr("m1 ("));
  Lookup other(15, 1);  // needs m0 only: still served
  other.rows[0][0] = RowOwnedBy(cluster.map, 0);
  other.rows[1].clear();
  other.Resize();
  auto served = client->Submit(other.Layers(), Soon());
  ASSERT_TRUE(served.ok()) << served.status().ToString();
  EXPECT_TRUE(served->Wait(0).ok());
  EXPECT_TRUE(other.Right(0));
}

TEST(LookupClient, AClosedControlConnectionMeansTheNodeIsGone) {
  FakeCluster cluster(1);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  cluster.hub.Stop(cluster.nodes[0]->transport_address());
  Lookup lookup(16, 10);
  auto ticket = *client->Submit(lookup.Layers(), Soon());
  cluster.nodes[0]->CloseControl();
  const Status status = ticket.Wait(1);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("control connection"));
}

// A loopback transport whose owner can be held up inside Progress, where it then loses its peer.
class HeldTransport : public net::Transport {
 public:
  explicit HeldTransport(std::unique_ptr<net::Transport> inner) : inner_(std::move(inner)) {}

  // Returns once the owner is in Progress; it stays there until LosePeer.
  void Hold() {
    std::unique_lock lock(mutex_);
    hold_ = true;
    inner_->WakeUp();
    changed_.wait(lock, [this] { return held_; });
  }
  void LosePeer() {
    const std::lock_guard lock(mutex_);
    hold_ = false;
    changed_.notify_all();
  }

  std::string name() const override { return inner_->name(); }
  std::string address() const override { return inner_->address(); }
  std::string settings() const override { return inner_->settings(); }
  void SetHandler(net::TransportHandler* handler) override {
    handler_ = handler;
    inner_->SetHandler(handler);
  }
  Result<std::unique_ptr<net::DialedPeer>> Dial(const std::string& address,
                                                Nanos timeout) const override {
    return inner_->Dial(address, timeout);
  }
  Result<net::PeerId> Attach(std::unique_ptr<net::DialedPeer> dialed) override {
    const Result<net::PeerId> peer = inner_->Attach(std::move(dialed));
    if (peer.ok()) peer_ = *peer;
    return peer;
  }
  Result<std::unique_ptr<net::SendBuffer>> AllocateSendBuffer(size_t size_bytes) override {
    return inner_->AllocateSendBuffer(size_bytes);
  }
  Status Send(net::PeerId to, std::span<const std::byte> header, net::SendBuffer* body,
              size_t body_bytes, std::function<void(Status)> done) override {
    return inner_->Send(to, header, body, body_bytes, std::move(done));
  }
  int Progress() override {
    std::unique_lock lock(mutex_);
    if (!hold_) return inner_->Progress();
    held_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !hold_; });
    inner_->Disconnect(peer_);
    handler_->OnPeerLost(peer_, Unavailable("the cable was cut"));
    return 1;
  }
  void Wait(Nanos timeout) override { inner_->Wait(timeout); }
  void WakeUp() override { inner_->WakeUp(); }
  void Disconnect(net::PeerId peer) override { inner_->Disconnect(peer); }

 private:
  const std::unique_ptr<net::Transport> inner_;
  net::TransportHandler* handler_ = nullptr;
  net::PeerId peer_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool hold_ = false;
  bool held_ = false;
};

// Posted while the node is there, sent after it is lost.
TEST(LookupClient, ARequestPostedWhileItsNodeIsLostSaysWhyItWasLost) {
  FakeCluster cluster(1);
  HeldTransport* held = nullptr;
  cluster.options.make_transport = [&]() -> Result<std::unique_ptr<net::Transport>> {
    auto transport = std::make_unique<HeldTransport>(cluster.hub.MakeTransport());
    held = transport.get();
    return std::unique_ptr<net::Transport>(std::move(transport));
  };
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  held->Hold();
  Lookup lookup(21, 10);
  auto ticket = client->Submit(lookup.Layers(), Soon());
  held->LosePeer();
  ASSERT_TRUE(ticket.ok()) << ticket.status().ToString();
  const Status status = ticket->Wait(1);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("m0 ("), HasSubstr("the cable was cut")));
}

TEST(LookupClient, AStoppedNodeIsNoticedAtTheDeadlineAndMayComeBack) {
  FakeCluster cluster(1);
  cluster.StartAll();
  const auto client = cluster.MustConnect();
  cluster.hub.Stop(cluster.nodes[0]->transport_address());
  Lookup lookup(17, 50);
  auto ticket = *client->Submit(lookup.Layers(), Shortly());
  EXPECT_EQ(ticket.Wait(1).code(), Code::kDeadlineExceeded);
  cluster.hub.Resume(cluster.nodes[0]->transport_address());
  Lookup next(18, 50);
  EXPECT_TRUE((*client->Submit(next.Layers(), Soon())).Wait(1).ok());
  EXPECT_TRUE(next.Right(1));
}

TEST(LookupClient, TicketsOutliveTheirClient) {
  FakeCluster cluster(1);
  cluster.StartAll();
  auto client = cluster.MustConnect();
  cluster.hub.Stop(cluster.nodes[0]->transport_address());
  Lookup lookup(19, 50);
  auto ticket = *client->Submit(lookup.Layers(), Soon());
  client.reset();
  EXPECT_EQ(ticket.Wait(0).code(), Code::kCancelled);
}

TEST(LookupClient, OverUcxRowsAreRightToo) {
  FakeCluster cluster(2, /*ucx=*/true);
  for (size_t i = 0; i < 2; ++i) {
    auto behaviour = cluster.BehaviourOf(i);
    behaviour.chunk_rows = 480;
    cluster.StartNode(behaviour);
  }
  const auto client = cluster.MustConnect();
  for (uint64_t step = 0; step < 20; ++step) {
    Lookup lookup(step, 1 + step * 100);
    auto ticket = *client->Submit(lookup.Layers(), Soon());
    const Status status = ticket.Wait(0);
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_TRUE(ticket.Wait(1).ok());
    EXPECT_TRUE(lookup.Right(0) && lookup.Right(1));
  }
}

}  // namespace
}  // namespace engram::client
