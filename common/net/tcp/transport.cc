#include "common/net/tcp/transport.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <unordered_map>
#include <vector>

#include "common/base/buffer.h"
#include "common/net/control/fd_passing.h"
#include "common/net/tcp/acceptor.h"
#include "common/net/tcp/address.h"
#include "common/net/tcp/challenge.h"
#include "common/net/tcp/dial.h"
#include "common/net/tcp/link.h"

namespace engram::net {
namespace {

// With this few peers each is asked for bytes directly, which costs one system call instead of two.
constexpr size_t kPolledPeersMax = 4;
// Events of other descriptors, and new connections, are looked for every so many rounds then.
constexpr uint32_t kEventsEvery = 256;
constexpr int kEventsMax = 64;
// A Wait is no longer than this while a peer's time may run out.
constexpr Nanos kTimeCheck = std::chrono::milliseconds(50);
constexpr int kReceivesMax = 8;  // of one peer in a round, so that a flood cannot hold the others

class TcpBuffer : public SendBuffer {
 public:
  explicit TcpBuffer(AlignedBuffer memory) : memory_(std::move(memory)) {}
  std::span<std::byte> bytes() override { return memory_.bytes(); }

 private:
  AlignedBuffer memory_;
};

struct DialedStream : DialedPeer {
  DialedStream(const std::string& text, TcpAddress address)
      : DialedPeer(text), where(std::move(address)) {}
  const TcpAddress where;
  TcpStream stream;  // none of a peer that dials
};

class TcpTransport : public Transport {
 public:
  explicit TcpTransport(const TcpOptions& options)
      : options_(options),
        security_(options.security == nullptr ? std::make_shared<const Security>()
                                              : options.security),
        id_(RandomEndpointId()) {}
  ~TcpTransport() override;
  Status Open();

  std::string name() const override { return "tcp"; }
  std::string address() const override { return address_; }
  std::string settings() const override {
    return fmt::format("tcp frames 1, tls {}", security_->tls() ? "on" : "off");
  }
  void SetHandler(TransportHandler* handler) override { handler_ = handler; }
  Result<PeerId> Connect(const std::string& address) override;
  Result<std::unique_ptr<DialedPeer>> Dial(const std::string& address,
                                           Nanos timeout) const override;
  Result<PeerId> Attach(std::unique_ptr<DialedPeer> dialed) override;
  Result<std::unique_ptr<SendBuffer>> AllocateSendBuffer(size_t size_bytes) override;
  Status Send(PeerId to, std::span<const std::byte> header, SendBuffer* body, size_t body_bytes,
              std::function<void(Status)> done) override {
    return SendFrame(to, header, body, body_bytes, std::move(done), false);
  }
  Status SendMore(PeerId to, std::span<const std::byte> header, SendBuffer* body, size_t body_bytes,
                  std::function<void(Status)> done) override {
    return SendFrame(to, header, body, body_bytes, std::move(done), true);
  }
  int Progress() override;
  void Wait(Nanos timeout) override;
  void WakeUp() override;
  void Disconnect(PeerId peer) override;

 private:
  struct Peer {
    PeerId id = 0;
    EndpointId remote{};
    std::unique_ptr<TcpLink> link;  // null until it has arrived
    TimePoint arrives_until;
    bool awaits_write = false;  // as epoll knows it
    bool given_up = false;      // by Disconnect: nothing more is reported
    bool ending = false;
    Status lost;
  };

  // Decrypted bytes, or write interest not yet registered with epoll.
  static bool HasUnannounced(const Peer* peer) {
    return peer->link->may_have_more() || peer->link->wants_write() != peer->awaits_write;
  }
  Status SendFrame(PeerId to, std::span<const std::byte> header, SendBuffer* body,
                   size_t body_bytes, std::function<void(Status)> done, bool more);
  Peer* AddPeer(const EndpointId& remote);
  Status CheckNew(const EndpointId& remote) const;
  Status Link(Peer& peer, TcpStream stream);
  Status Watch(int fd, uint64_t tag, uint32_t events, int operation) const;
  int HandleEvents(int timeout_ms);
  int Serve(Peer& peer);
  void Arrived(const EndpointId& remote, TcpStream stream);
  void EndSoon(Peer& peer, Status why);
  int EndPeers();
  void CheckArrivals();
  bool Expects(const EndpointId& remote) const;

  const TcpOptions options_;
  const std::shared_ptr<const Security> security_;
  const EndpointId id_;
  std::string address_;
  OwnedFd epoll_, wake_;
  std::unique_ptr<TcpAcceptor> acceptor_;  // null: dials only
  TransportHandler* handler_ = nullptr;
  PeerId next_peer_ = 1;
  std::unordered_map<PeerId, std::unique_ptr<Peer>> peers_;
  std::map<EndpointId, PeerId> peer_of_remote_;
  std::vector<Peer*> linked_;  // that have arrived and are not ending
  std::vector<Peer*> served_;  // scratch of Progress: handlers may change linked_
  std::vector<PeerId> ending_;
  size_t expected_ = 0;  // peers that have not arrived
  uint32_t rounds_ = 0;
};

// Tags of epoll events that belong to no peer; a peer's tag is its id.
constexpr uint64_t kWakeTag = UINT64_MAX;
constexpr uint64_t kAcceptorTag = UINT64_MAX - 1;

Status SystemError(std::string_view what) {
  return Unavailable(fmt::format("{}: {}", what, std::strerror(errno)));
}

Status TcpTransport::Open() {
  epoll_ = OwnedFd(::epoll_create1(EPOLL_CLOEXEC));
  wake_ = OwnedFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (epoll_.get() < 0 || wake_.get() < 0) return SystemError("epoll");
  RETURN_IF_ERROR(Watch(wake_.get(), kWakeTag, EPOLLIN, EPOLL_CTL_ADD));
  TcpAddress address;
  address.id = id_;
  if (!options_.listen_host.empty()) {
    TcpAcceptor::Callbacks callbacks;
    callbacks.expects = [this](const EndpointId& remote) { return Expects(remote); };
    callbacks.arrived = [this](const EndpointId& remote, TcpStream stream) {
      Arrived(remote, std::move(stream));
    };
    TcpAcceptor::Options accept;
    accept.host = options_.listen_host;
    accept.port = options_.listen_port;
    accept.security = security_;
    accept.own_id = id_;
    accept.timeout = options_.connect_timeout;
    ASSIGN_OR_RETURN(acceptor_, TcpAcceptor::Open(std::move(accept), std::move(callbacks)));
    RETURN_IF_ERROR(Watch(acceptor_->fd(), kAcceptorTag, EPOLLIN, EPOLL_CTL_ADD));
    address.host = acceptor_->host();
    address.port = acceptor_->port();
  }
  address_ = FormatTcpAddress(address);
  return OkStatus();
}

TcpTransport::~TcpTransport() = default;

Status TcpTransport::Watch(int fd, uint64_t tag, uint32_t events, int operation) const {
  epoll_event event = {};
  event.events = events;
  event.data.u64 = tag;
  if (::epoll_ctl(epoll_.get(), operation, fd, &event) == 0) return OkStatus();
  return SystemError("epoll_ctl");
}

bool TcpTransport::Expects(const EndpointId& remote) const {
  const auto found = peer_of_remote_.find(remote);
  if (found == peer_of_remote_.end()) return false;
  const Peer& peer = *peers_.at(found->second);
  return peer.link == nullptr && !peer.ending;
}

TcpTransport::Peer* TcpTransport::AddPeer(const EndpointId& remote) {
  auto peer = std::make_unique<Peer>();
  peer->id = next_peer_++;
  peer->remote = remote;
  Peer* raw = peer.get();
  peer_of_remote_[remote] = raw->id;
  peers_[raw->id] = std::move(peer);
  return raw;
}

Status TcpTransport::CheckNew(const EndpointId& remote) const {
  if (remote != id_ && !peer_of_remote_.contains(remote)) return OkStatus();
  return AlreadyExists("already connected to this TCP address, or it is our own");
}

Result<PeerId> TcpTransport::Connect(const std::string& text) {
  ASSIGN_OR_RETURN(const TcpAddress address, ParseTcpAddress(text));
  RETURN_IF_ERROR(CheckNew(address.id));
  // A client could name a port that never answers, and this thread would wait for it.
  if (acceptor_ != nullptr && address.port != 0) {
    return InvalidArgument(
        fmt::format("a client at {}:{} is to be dialled: clients connect to a node, not the other "
                    "way round",
                    address.host, address.port));
  }
  return Transport::Connect(text);
}

Result<std::unique_ptr<DialedPeer>> TcpTransport::Dial(const std::string& text,
                                                       Nanos timeout) const {
  ASSIGN_OR_RETURN(const TcpAddress address, ParseTcpAddress(text));
  auto dialed = std::make_unique<DialedStream>(text, address);
  if (address.port == 0) return std::unique_ptr<DialedPeer>(std::move(dialed));
  const TimePoint deadline = Clock::Real().Now() + std::min(timeout, options_.connect_timeout);
  const std::string what = fmt::format("data connection to {}:{}", address.host, address.port);
  Result<TcpStream> stream = DialTcp(address.host, address.port, deadline);
  if (!stream.ok()) return stream.status().WithContext(what);
  const Status introduced =
      Introduce(*stream, *security_, ChallengePurpose::kData, id_, address.id, deadline);
  if (!introduced.ok()) return introduced.WithContext(what);
  dialed->stream = std::move(*stream);
  return std::unique_ptr<DialedPeer>(std::move(dialed));
}

Result<PeerId> TcpTransport::Attach(std::unique_ptr<DialedPeer> dialed) {
  auto& way = static_cast<DialedStream&>(*dialed);  // Dial makes no other
  const EndpointId& remote = way.where.id;
  const bool dials = way.where.port == 0;
  RETURN_IF_ERROR(CheckNew(remote));
  if (dials && acceptor_ == nullptr) {
    return FailedPrecondition("neither side of this connection listens");
  }
  Peer* peer = AddPeer(remote);
  const PeerId id = peer->id;
  if (dials) {
    peer->arrives_until = Clock::Real().Now() + options_.connect_timeout;
    ++expected_;
    return id;
  }
  const Status linked = Link(*peer, std::move(way.stream));
  if (linked.ok()) return id;
  peer_of_remote_.erase(remote);
  peers_.erase(id);
  return linked;
}

Status TcpTransport::Link(Peer& peer, TcpStream stream) {
  stream.SetOptions(options_.peer_timeout);
  ASSIGN_OR_RETURN(peer.link, TcpLink::Make(std::move(stream)));
  const Status watched = Watch(peer.link->fd(), peer.id, EPOLLIN, EPOLL_CTL_ADD);
  if (!watched.ok()) peer.link.reset();
  if (watched.ok()) linked_.push_back(&peer);
  return watched;
}

void TcpTransport::Arrived(const EndpointId& remote, TcpStream stream) {
  if (!Expects(remote)) return;  // given up since the challenge
  Peer& peer = *peers_.at(peer_of_remote_.at(remote));
  const Status attached = Link(peer, std::move(stream));
  if (!attached.ok()) return EndSoon(peer, attached);
  --expected_;
}

Result<std::unique_ptr<SendBuffer>> TcpTransport::AllocateSendBuffer(size_t size_bytes) {
  ASSIGN_OR_RETURN(AlignedBuffer memory, AlignedBuffer::Allocate(size_bytes, PageBacking::kSmall));
  return std::unique_ptr<SendBuffer>(std::make_unique<TcpBuffer>(std::move(memory)));
}

Status TcpTransport::SendFrame(PeerId to, std::span<const std::byte> header, SendBuffer* body,
                               size_t body_bytes, std::function<void(Status)> done, bool more) {
  if (header.size() > kHeaderBytesMax || body_bytes > kBodyBytesMax) {
    return ResourceExhausted(fmt::format("message of {} + {} bytes, limits are {} + {}",
                                         header.size(), body_bytes, kHeaderBytesMax,
                                         kBodyBytesMax));
  }
  const auto found = peers_.find(to);
  if (found == peers_.end() || found->second->ending || found->second->link == nullptr) {
    return Unavailable(fmt::format("peer {} is not connected", to));
  }
  Peer& peer = *found->second;
  std::span<const std::byte> bytes;
  if (body_bytes > 0) {
    CHECK_LE(body_bytes, body->bytes().size());
    bytes = body->bytes().first(body_bytes);
  }
  const Status sent = peer.link->Send(header, bytes, std::move(done), more);
  if (!peer.link->why().ok()) EndSoon(peer, peer.link->why());
  return sent;
}

// Bytes in and out of one peer.
int TcpTransport::Serve(Peer& peer) {
  TcpLink& link = *peer.link;
  int events = link.wants_write() ? link.Flush() : 0;
  for (int round = 0; round < kReceivesMax && !peer.ending; ++round) {
    const int delivered = link.Receive([&](auto header, auto body) {
      handler_->OnMessage(peer.id, header, body);
      return !peer.ending;
    });
    events += delivered;
    if (!link.may_have_more()) break;
  }
  if (peer.ending) return events;
  if (!link.why().ok()) {
    EndSoon(peer, link.why());
  } else if (link.wants_write() != peer.awaits_write) {
    peer.awaits_write = link.wants_write();
    const uint32_t wanted = EPOLLIN | (peer.awaits_write ? EPOLLOUT : 0u);
    const Status watched = Watch(link.fd(), peer.id, wanted, EPOLL_CTL_MOD);
    if (!watched.ok()) EndSoon(peer, watched);
  }
  return events;
}

int TcpTransport::HandleEvents(int timeout_ms) {
  epoll_event happened[kEventsMax];
  const int count = ::epoll_wait(epoll_.get(), happened, kEventsMax, timeout_ms);
  int events = 0;
  for (int i = 0; i < count; ++i) {
    const uint64_t tag = happened[i].data.u64;
    if (tag == kWakeTag) {
      uint64_t wakes = 0;
      (void)!::read(wake_.get(), &wakes, sizeof(wakes));
    } else if (tag == kAcceptorTag) {
      events += acceptor_->Progress();
    } else if (const auto found = peers_.find(tag); found != peers_.end()) {
      if (!found->second->ending) events += Serve(*found->second);
    }
  }
  return events;
}

int TcpTransport::Progress() {
  int events = 0;
  const bool polled = linked_.size() <= kPolledPeersMax;
  if (polled) {
    served_.assign(linked_.begin(), linked_.end());
    for (Peer* peer : served_) {
      if (!peer->ending) events += Serve(*peer);
    }
  }
  if (!polled) {
    // epoll reports nothing for these.
    served_.clear();
    std::ranges::copy_if(linked_, std::back_inserter(served_), &HasUnannounced);
    for (Peer* peer : served_) {
      if (!peer->ending) events += Serve(*peer);
    }
  }
  const bool guests = acceptor_ != nullptr && acceptor_->needs_time();
  if (!polled || linked_.empty() || guests || rounds_++ % kEventsEvery == 0) {
    events += HandleEvents(0);
    if (guests) events += acceptor_->Progress();
  }
  if (expected_ > 0) CheckArrivals();
  if (!ending_.empty()) events += EndPeers();
  return events;
}

void TcpTransport::Wait(Nanos timeout) {
  if (timeout <= Nanos::zero() || !ending_.empty()) return;
  if (std::ranges::any_of(linked_, &HasUnannounced)) return;
  if (expected_ > 0 || (acceptor_ != nullptr && acceptor_->needs_time())) {
    timeout = std::min(timeout, kTimeCheck);
  }
  rounds_ = 0;  // the next round looks at every event
  epoll_event one;
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(timeout).count();
  ::epoll_wait(epoll_.get(), &one, 1, static_cast<int>(std::min<int64_t>(ms, 60'000)));
}

void TcpTransport::WakeUp() {
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));
}

void TcpTransport::Disconnect(PeerId id) {
  const auto found = peers_.find(id);
  if (found == peers_.end() || found->second->given_up) return;
  found->second->given_up = true;
  EndSoon(*found->second, Cancelled("the peer was given up"));
}

// EndPeers reports and erases the peer at the end of a Progress, never inside a callback.
void TcpTransport::EndSoon(Peer& peer, Status why) {
  if (peer.ending) return;
  peer.ending = true;
  peer.lost = std::move(why);
  if (peer.link == nullptr) --expected_;
  peer_of_remote_.erase(peer.remote);
  std::erase(linked_, &peer);
  ending_.push_back(peer.id);
}

int TcpTransport::EndPeers() {
  int told = 0;
  while (!ending_.empty()) {
    const PeerId id = ending_.back();
    ending_.pop_back();
    const auto node = peers_.extract(id);
    Peer& peer = *node.mapped();
    if (peer.link != nullptr)
      peer.link->Abandon(peer.given_up ? Cancelled("the peer was given up") : peer.lost);
    if (peer.given_up) continue;
    handler_->OnPeerLost(id, peer.lost);
    ++told;
  }
  return told;
}

void TcpTransport::CheckArrivals() {
  const TimePoint now = Clock::Real().Now();
  for (const auto& [id, peer] : peers_) {
    if (peer->link != nullptr || peer->ending || now < peer->arrives_until) continue;
    EndSoon(*peer, Unavailable("the peer did not open its data connection in time"));
  }
}

}  // namespace

Result<std::unique_ptr<Transport>> MakeTcpTransport(const TcpOptions& options) {
  auto transport = std::make_unique<TcpTransport>(options);
  RETURN_IF_ERROR(transport->Open());
  return std::unique_ptr<Transport>(std::move(transport));
}

std::string WithHost(const std::string& address, const std::string& host) {
  Result<TcpAddress> parsed = ParseTcpAddress(address);
  if (!parsed.ok() || parsed->port == 0 || parsed->host != kAnyHost) return address;
  parsed->host = host;
  return FormatTcpAddress(*parsed);
}

}  // namespace engram::net
