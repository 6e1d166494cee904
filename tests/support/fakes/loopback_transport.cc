#include "tests/support/fakes/loopback_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

namespace engram::net {
namespace {

constexpr size_t kMailboxMessagesMax = 1 << 16;

struct Event {
  std::string from;
  bool lost = false;  // the peer is gone; no message
  std::vector<std::byte> header;
  std::vector<std::byte> body;
};

// One transport as the hub sees it.
struct Node {
  std::deque<Event> mailbox;
  std::condition_variable arrived;
  bool woken = false;
  bool alive = true;
  bool stopped = false;
  int drop = 0;
  int corrupt = 0;
  int duplicate = 0;
  bool hold = false;
  std::vector<std::pair<std::string, Event>> held;  // (to, what)
  std::span<const std::byte> shared;
  int corrupt_reads = 0;
};

}  // namespace

struct LoopbackHub::State {
  mutable std::mutex mutex;  // guards everything below
  std::map<std::string, std::unique_ptr<Node>> nodes;
  uint64_t next_address = 1;
  bool one_sided = false;

  Node* Find(const std::string& address) {
    const auto it = nodes.find(address);
    return it == nodes.end() ? nullptr : it->second.get();
  }

  void Deliver(const std::string& to, Event event) {
    Node* node = Find(to);
    if (node == nullptr || !node->alive) return;
    node->mailbox.push_back(std::move(event));
    node->arrived.notify_all();
  }

  void Kill(const std::string& address) {
    Node* node = Find(address);
    if (node == nullptr || !node->alive) return;
    node->alive = false;
    node->mailbox.clear();
    node->held.clear();
    for (const auto& [other, unused] : nodes) {
      if (other != address)
        Deliver(other, Event{.from = address, .lost = true, .header = {}, .body = {}});
    }
  }
};

namespace {

bool TakeOne(int& count) {
  if (count <= 0) return false;
  --count;
  return true;
}

class LoopbackBuffer : public SendBuffer {
 public:
  explicit LoopbackBuffer(size_t size_bytes) : bytes_(size_bytes) {}
  std::span<std::byte> bytes() override { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class LoopbackTransport : public Transport {
 public:
  LoopbackTransport(std::shared_ptr<LoopbackHub::State> hub, std::string address, Node* self)
      : hub_(std::move(hub)), address_(std::move(address)), self_(self) {}

  ~LoopbackTransport() override {
    const std::lock_guard lock(hub_->mutex);
    hub_->Kill(address_);
  }

  std::string name() const override { return "loopback"; }
  std::string address() const override { return address_; }
  std::string settings() const override { return "loopback 1"; }
  void SetHandler(TransportHandler* handler) override { handler_ = handler; }

  Result<PeerId> Attach(std::unique_ptr<DialedPeer> dialed) override {
    const std::string& address = dialed->address();
    const std::lock_guard lock(hub_->mutex);
    const Node* node = hub_->Find(address);
    if (node == nullptr || !node->alive || address == address_) {
      return Unavailable(fmt::format("no loopback transport at \"{}\"", address));
    }
    const PeerId id = next_peer_++;
    peers_[id] = address;
    peer_of_address_[address] = id;
    return id;
  }

  Result<std::unique_ptr<SendBuffer>> AllocateSendBuffer(size_t size_bytes) override {
    return std::unique_ptr<SendBuffer>(std::make_unique<LoopbackBuffer>(size_bytes));
  }

  Status Send(PeerId to, std::span<const std::byte> header, SendBuffer* body, size_t body_bytes,
              std::function<void(Status)> done) override;
  bool one_sided() const override;
  Result<std::string> ShareMemory(std::span<const std::byte> memory) override;
  Status OpenMemory(PeerId peer, const std::string& key) override;
  Status Read(PeerId peer, std::span<const ReadPiece> pieces, SendBuffer* into,
              std::function<void(Status)> done) override;
  int Progress() override;
  void Wait(Nanos timeout) override;
  void WakeUp() override;
  void Disconnect(PeerId peer) override;

 private:
  struct Completion {
    PeerId peer;
    Status status;
    std::function<void(Status)> done;
  };
  struct PendingRead {
    PeerId peer;
    std::string owner;  // its address
    std::vector<ReadPiece> pieces;
    std::span<std::byte> into;
    std::function<void(Status)> done;
  };

  void CompleteReads();
  int DeliverCompletions();
  bool Idle() const { return self_->stopped || self_->mailbox.empty(); }  // under the hub's mutex
  void Forget(PeerId peer);

  const std::shared_ptr<LoopbackHub::State> hub_;
  const std::string address_;
  Node* const self_;  // owned by the hub's state; never removed
  TransportHandler* handler_ = nullptr;
  PeerId next_peer_ = 1;
  std::map<PeerId, std::string> peers_;
  std::map<std::string, PeerId> peer_of_address_;
  std::map<PeerId, uint64_t> opened_;  // size of the peer's memory
  std::vector<PendingRead> reads_;     // carried out by the next Progress
  std::vector<Completion> completions_;
};

Status LoopbackTransport::Send(PeerId to, std::span<const std::byte> header, SendBuffer* body,
                               size_t body_bytes, std::function<void(Status)> done) {
  if (header.size() > kHeaderBytesMax || body_bytes > kBodyBytesMax) {
    return ResourceExhausted(fmt::format("message of {} + {} bytes, limits are {} + {}",
                                         header.size(), body_bytes, kHeaderBytesMax,
                                         kBodyBytesMax));
  }
  const auto peer = peers_.find(to);
  if (peer == peers_.end()) return Unavailable(fmt::format("peer {} is not connected", to));
  Event event{
      .from = address_, .lost = false, .header = {header.begin(), header.end()}, .body = {}};
  if (body_bytes > 0) {
    const std::span<std::byte> bytes = body->bytes().first(body_bytes);
    event.body.assign(bytes.begin(), bytes.end());
  }
  const std::lock_guard lock(hub_->mutex);
  if (!self_->alive) return Unavailable("this transport was killed");
  const Node* target = hub_->Find(peer->second);
  if (target->mailbox.size() >= kMailboxMessagesMax || self_->held.size() >= kMailboxMessagesMax) {
    return ResourceExhausted(fmt::format("{} messages wait for the peer", kMailboxMessagesMax));
  }
  completions_.push_back({to, target->alive ? OkStatus() : Unavailable("the peer is gone"),
                          done ? std::move(done) : [](const Status&) {}});
  if (TakeOne(self_->drop)) return OkStatus();
  if (!event.body.empty() && TakeOne(self_->corrupt)) {
    event.body[event.body.size() / 2] ^= std::byte{0x10};
  }
  const bool twice = TakeOne(self_->duplicate);
  for (int copy = 0; copy < (twice ? 2 : 1); ++copy) {
    if (self_->hold) {
      self_->held.emplace_back(peer->second, event);
    } else {
      hub_->Deliver(peer->second, event);
    }
  }
  return OkStatus();
}

bool LoopbackTransport::one_sided() const {
  const std::lock_guard lock(hub_->mutex);
  return hub_->one_sided;
}

// The key: the owner's address and the size.
Result<std::string> LoopbackTransport::ShareMemory(std::span<const std::byte> memory) {
  if (!one_sided()) return Transport::ShareMemory(memory);
  const std::lock_guard lock(hub_->mutex);
  if (!self_->shared.empty()) return FailedPrecondition("memory is shared already");
  if (memory.empty()) return InvalidArgument("no memory to share");
  self_->shared = memory;
  return fmt::format("{}/{}", address_, memory.size());
}

Status LoopbackTransport::OpenMemory(PeerId peer, const std::string& key) {
  if (!one_sided()) return Transport::OpenMemory(peer, key);
  const auto known = peers_.find(peer);
  if (known == peers_.end()) return Unavailable(fmt::format("peer {} is not connected", peer));
  if (opened_.contains(peer)) return FailedPrecondition("this peer's memory is open already");
  const std::lock_guard lock(hub_->mutex);
  const size_t size = hub_->Find(known->second)->shared.size();
  if (size == 0 || key != fmt::format("{}/{}", known->second, size)) {
    return InvalidArgument(fmt::format("\"{}\" is not a key of this peer", key));
  }
  opened_[peer] = size;
  return OkStatus();
}

Status LoopbackTransport::Read(PeerId peer, std::span<const ReadPiece> pieces, SendBuffer* into,
                               std::function<void(Status)> done) {
  if (!one_sided()) return Transport::Read(peer, pieces, into, std::move(done));
  const auto opened = opened_.find(peer);
  if (opened == opened_.end()) {
    return Unavailable(fmt::format("no memory of peer {} is open for reading", peer));
  }
  for (const ReadPiece& piece : pieces) {
    CHECK_LE(uint64_t{piece.into_offset} + piece.bytes, into->bytes().size());
    if (piece.bytes > opened->second || piece.offset > opened->second - piece.bytes) {
      return OutOfRange(fmt::format("read of {} bytes at offset {} of the peer's {} bytes",
                                    piece.bytes, piece.offset, opened->second));
    }
  }
  if (reads_.size() >= kMailboxMessagesMax) {
    return ResourceExhausted(fmt::format("{} reads wait already", kMailboxMessagesMax));
  }
  reads_.push_back({peer,
                    peers_.at(peer),
                    {pieces.begin(), pieces.end()},
                    into->bytes(),
                    done ? std::move(done) : [](const Status&) {}});
  return OkStatus();
}

// Not before Progress, so that a test that looks at `into` too early is caught, and that an owner
// killed in between fails the read.
void LoopbackTransport::CompleteReads() {
  for (PendingRead& read : reads_) {
    const std::lock_guard lock(hub_->mutex);
    Node* owner = hub_->Find(read.owner);
    Status status = owner->alive ? OkStatus() : Unavailable("reading: the peer is gone");
    for (const ReadPiece& piece : read.pieces) {
      if (!status.ok()) break;
      std::memcpy(read.into.data() + piece.into_offset, owner->shared.data() + piece.offset,
                  piece.bytes);
    }
    if (status.ok() && !read.pieces.empty() && TakeOne(owner->corrupt_reads)) {
      const ReadPiece& piece = read.pieces[read.pieces.size() / 2];
      read.into[piece.into_offset + piece.bytes / 2] ^= std::byte{0x10};
    }
    completions_.push_back({read.peer, std::move(status), std::move(read.done)});
  }
  reads_.clear();
}

int LoopbackTransport::DeliverCompletions() {
  std::vector<Completion> ready;
  ready.swap(completions_);
  for (Completion& completion : ready) completion.done(completion.status);
  return static_cast<int>(ready.size());
}

int LoopbackTransport::Progress() {
  int events = 0;
  std::deque<Event> arrived;
  {
    const std::lock_guard lock(hub_->mutex);
    if (self_->stopped) return 0;
    arrived.swap(self_->mailbox);
  }
  CompleteReads();
  events += DeliverCompletions();
  for (const Event& event : arrived) {
    const auto known = peer_of_address_.find(event.from);
    if (known == peer_of_address_.end()) continue;  // a stranger, or given up
    const PeerId peer = known->second;
    ++events;
    if (event.lost) {
      Forget(peer);
      handler_->OnPeerLost(peer, Unavailable("the peer's process is gone"));
    } else {
      handler_->OnMessage(peer, event.header, event.body);
    }
  }
  return events;
}

void LoopbackTransport::Wait(Nanos timeout) {
  std::unique_lock lock(hub_->mutex);
  if (completions_.empty() && reads_.empty()) {
    self_->arrived.wait_for(lock, timeout, [&] { return self_->woken || !Idle(); });
  }
  self_->woken = false;
}

void LoopbackTransport::WakeUp() {
  const std::lock_guard lock(hub_->mutex);
  self_->woken = true;
  self_->arrived.notify_all();
}

void LoopbackTransport::Forget(PeerId peer) {
  const auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  peer_of_address_.erase(it->second);
  peers_.erase(it);
  opened_.erase(peer);
}

void LoopbackTransport::Disconnect(PeerId peer) {
  const auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  {
    const std::lock_guard lock(hub_->mutex);
    hub_->Deliver(it->second, Event{.from = address_, .lost = true, .header = {}, .body = {}});
  }
  for (Completion& completion : completions_) {
    if (completion.peer == peer) completion.status = Cancelled("disconnected");
  }
  for (size_t i = 0; i < reads_.size();) {
    if (reads_[i].peer != peer) {
      ++i;
      continue;
    }
    completions_.push_back({peer, Cancelled("disconnected"), std::move(reads_[i].done)});
    reads_.erase(reads_.begin() + static_cast<ptrdiff_t>(i));
  }
  Forget(peer);
}

}  // namespace

LoopbackHub::LoopbackHub() : state_(std::make_shared<State>()) {}
LoopbackHub::~LoopbackHub() = default;

std::unique_ptr<Transport> LoopbackHub::MakeTransport() {
  const std::lock_guard lock(state_->mutex);
  std::string address = fmt::format("loopback:{}", state_->next_address++);
  Node* node = (state_->nodes[address] = std::make_unique<Node>()).get();
  return std::make_unique<LoopbackTransport>(state_, std::move(address), node);
}

void LoopbackHub::SetOneSided(bool one_sided) {
  const std::lock_guard lock(state_->mutex);
  state_->one_sided = one_sided;
}

void LoopbackHub::CorruptNextReads(const std::string& address, int count) {
  const std::lock_guard lock(state_->mutex);
  state_->nodes.at(address)->corrupt_reads = count;
}

void LoopbackHub::DropNext(const std::string& address, int count) {
  const std::lock_guard lock(state_->mutex);
  state_->nodes.at(address)->drop = count;
}

void LoopbackHub::CorruptNext(const std::string& address, int count) {
  const std::lock_guard lock(state_->mutex);
  state_->nodes.at(address)->corrupt = count;
}

void LoopbackHub::DuplicateNext(const std::string& address, int count) {
  const std::lock_guard lock(state_->mutex);
  state_->nodes.at(address)->duplicate = count;
}

void LoopbackHub::Hold(const std::string& address) {
  const std::lock_guard lock(state_->mutex);
  state_->nodes.at(address)->hold = true;
}

void LoopbackHub::Release(const std::string& address) {
  const std::lock_guard lock(state_->mutex);
  Node& node = *state_->nodes.at(address);
  node.hold = false;
  for (auto& [to, event] : node.held) state_->Deliver(to, std::move(event));
  node.held.clear();
}

size_t LoopbackHub::HeldCount(const std::string& address) const {
  const std::lock_guard lock(state_->mutex);
  return state_->nodes.at(address)->held.size();
}

void LoopbackHub::Kill(const std::string& address) {
  const std::lock_guard lock(state_->mutex);
  state_->Kill(address);
}

void LoopbackHub::Stop(const std::string& address) {
  const std::lock_guard lock(state_->mutex);
  state_->nodes.at(address)->stopped = true;
}

void LoopbackHub::Resume(const std::string& address) {
  const std::lock_guard lock(state_->mutex);
  Node& node = *state_->nodes.at(address);
  node.stopped = false;
  node.arrived.notify_all();
}

}  // namespace engram::net
