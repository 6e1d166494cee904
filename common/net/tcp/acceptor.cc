#include "common/net/tcp/acceptor.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "common/net/tcp/address.h"
#include "common/obs/log.h"

namespace engram::net {
namespace {

// At 8,000 connections a second from one address a socket has 64 ms for each of its two messages.
constexpr size_t kGuestsMax = 512;
constexpr size_t kTlsGuestsMax = 128;     // a TLS session takes 180 KiB
constexpr size_t kDescriptorsShare = 16;  // at most one of so many is for guests of either kind
constexpr size_t kGuestsMin = 4;
constexpr int kBacklog = 4096;
constexpr int kEventsMax = 64;
constexpr Nanos kSweepPeriod = std::chrono::milliseconds(50);
constexpr Nanos kAcceptRetry = std::chrono::milliseconds(50);
constexpr int kAcceptsMax = 64;  // in one Progress

// Trying again at once would keep epoll awake for nothing.
bool NeedsRest(int error) {
  return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

bool IsWildcard(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr == INADDR_ANY;
  }
  return std::memcmp(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, &in6addr_any,
                     sizeof(in6addr_any)) == 0;
}

size_t GuestsMax(const TcpAcceptor::Options& options) {
  const size_t wanted = options.security->tls() ? kTlsGuestsMax : kGuestsMax;
  return std::clamp(DescriptorsMax() / kDescriptorsShare, kGuestsMin, wanted);
}

void LogRefusal(int fd, std::string_view why) {
  sockaddr_storage name = {};
  socklen_t length = sizeof(name);
  char host[INET6_ADDRSTRLEN] = "unknown";
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&name), &length) == 0) {
    ::getnameinfo(reinterpret_cast<const sockaddr*>(&name), length, host, sizeof(host), nullptr, 0,
                  NI_NUMERICHOST);
  }
  obs::LogWarn(fmt::format("connection refused peer={} why={}", host, why));
}

}  // namespace

bool IsLoopback(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return ntohl(v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
  }
  if (address.ss_family != AF_INET6) return false;
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&v6) ||
         (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == IN_LOOPBACKNET);
}

TcpAcceptor::TcpAcceptor(Options options, Callbacks callbacks)
    : options_(std::move(options)),
      callbacks_(std::move(callbacks)),
      guests_max_(GuestsMax(options_)) {}

Result<std::unique_ptr<TcpAcceptor>> TcpAcceptor::Open(Options options, Callbacks callbacks) {
  std::unique_ptr<TcpAcceptor> acceptor(new TcpAcceptor(std::move(options), std::move(callbacks)));
  RETURN_IF_ERROR(acceptor->Listen());
  return acceptor;
}

Status TcpAcceptor::Listen() {
  const std::string what =
      fmt::format("cannot listen for {} connections on {}:{}",
                  options_.purpose == ChallengePurpose::kData ? "data" : "control", options_.host,
                  options_.port);
  const auto failed = [&](std::string_view step) {
    if (errno == EADDRINUSE) {
      return AlreadyExists(what +
                           ": the port is in use; stop the program that holds it or choose another "
                           "port");
    }
    return Unavailable(fmt::format("{}: {}: {}", what, step, std::strerror(errno)));
  };
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error =
      ::getaddrinfo(options_.host.c_str(), std::to_string(options_.port).c_str(), &hints, &found);
  if (error != 0) {
    return Unavailable(fmt::format("{}: the host is not known: {}", what, ::gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, &::freeaddrinfo);
  listener_ = OwnedFd(::socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  epoll_ = OwnedFd(::epoll_create1(EPOLL_CLOEXEC));
  if (listener_.get() < 0 || epoll_.get() < 0) return failed("no socket");
  const int one = 1;
  ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (::bind(listener_.get(), found->ai_addr, found->ai_addrlen) != 0) return failed("bind");
  if (::listen(listener_.get(), kBacklog) != 0) return failed("listen");
  sockaddr_storage bound = {};
  socklen_t length = sizeof(bound);
  ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&bound), &length);
  port_ = ntohs(bound.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&bound)->sin_port
                                           : reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port);
  loopback_ = IsLoopback(bound);
  host_ = IsWildcard(reinterpret_cast<sockaddr*>(&bound)) ? kAnyHost : options_.host;
  epoll_event event = {};  // its pointer is null
  event.events = EPOLLIN;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), &event) == 0) return OkStatus();
  return failed("epoll_ctl");
}

bool TcpAcceptor::proves_peers() const {
  const Security& security = *options_.security;
  if (!security.secret().empty()) return true;
  return security.tls() &&
         (SSL_CTX_get_verify_mode(security.context()) & SSL_VERIFY_FAIL_IF_NO_PEER_CERT) != 0;
}

bool TcpAcceptor::Await(Guest& guest, uint32_t events) {
  if (guest.events == events) return true;
  epoll_event event = {};
  event.events = events;
  event.data.ptr = &guest;
  const int operation = guest.events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  guest.events = events;
  return ::epoll_ctl(epoll_.get(), operation, guest.stream.fd(), &event) == 0;
}

// A socket that cannot be accepted would keep epoll awake.
void TcpAcceptor::Pause() {
  paused_ = true;
  paused_until_ = options_.clock->Now() + kAcceptRetry;
  epoll_event none = {};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.get(), &none);
}

std::vector<TcpAcceptor::Guest*> TcpAcceptor::GuestsThat(bool opened) {
  std::vector<Guest*> found;
  for (Guest& guest : guests_) {
    if (guest.opened == opened && !guest.gives_way) found.push_back(&guest);
  }
  return found;
}

std::vector<Occupant> TcpAcceptor::Occupants(const std::vector<Guest*>& guests) const {
  std::vector<Occupant> occupants;
  for (const Guest* guest : guests) occupants.push_back({guest->address, 0, guest->waits_since});
  return occupants;
}

// Connections that have opened the challenge have room of their own: connections that only wait do
// not push them out, and they do not push out connections that are about to open it.
bool TcpAcceptor::MakeRoom(bool opened, const PeerAddress& address) {
  const size_t count = opened ? opened_count_ : guests_.size() - opened_count_;
  if (count < guests_max_ - guests_max_ / kAddressShare) return true;
  const std::vector<Guest*> guests = GuestsThat(opened);
  const Place place = FindPlace(Occupants(guests), address, guests_max_);
  if (place.leaves) guests[*place.leaves]->gives_way = true;
  return place.given;
}

// Closes the longest waiting guest, or one that the owner offers.
bool TcpAcceptor::FreeDescriptor() {
  for (const bool opened : {false, true}) {
    const std::vector<Guest*> guests = GuestsThat(opened);
    const auto leaves = FirstToLeave(Occupants(guests));
    if (!leaves) continue;
    guests[*leaves]->gives_way = true;
    guests[*leaves]->stream = TcpStream();
    return true;
  }
  return callbacks_.free_one && callbacks_.free_one();
}

void TcpAcceptor::Accept() {
  if (paused_) {
    if (options_.clock->Now() < paused_until_) return;
    epoll_event event = {};
    event.events = EPOLLIN;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), &event) != 0) return;
    paused_ = false;
  }
  for (int i = 0; i < kAcceptsMax; ++i) {
    const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && NeedsRest(errno)) {
      if (!IsReadable(listener_.get())) return;  // accept4() reports EMFILE even when none waits
      if (FreeDescriptor()) continue;
      return Pause();
    }
    if (fd < 0) return;
    TcpStream stream(fd);
    if (!MakeRoom(false, PeerAddressOf(fd))) continue;  // closes it
    stream.SetNoDelay();
    if (!stream.StartTls(*options_.security, false).ok()) continue;
    const TimePoint now = options_.clock->Now();
    guests_.emplace_back(
        std::move(stream),
        Challenge::Accept(options_.purpose, "", "", options_.own_id, callbacks_.expects), now,
        now + options_.timeout);
    Settle(guests_.back());
  }
}

// Moves a guest on; one that has arrived or failed is closed at the end of this Progress.
void TcpAcceptor::Settle(Guest& guest) {
  if (guest.gives_way) return;
  const bool was_open = guest.opened;
  const Outcome outcome = Move(guest);
  if (guest.opened != was_open) {
    guest.waits_since = options_.clock->Now();
    guest.opened = was_open;  // it is not yet one of those that it needs room among
    const bool room = outcome != Outcome::kWaits || MakeRoom(true, guest.address);
    guest.opened = true;
    ++opened_count_;
    if (!room) guest.gives_way = true;
  }
  if (outcome == Outcome::kWaits) return;
  guest.gives_way = true;
  if (outcome == Outcome::kFailed) return;
  epoll_event none = {};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, guest.stream.fd(), &none);
  callbacks_.arrived(guest.challenge.peer_id(), std::move(guest.stream));
  ++arrived_;
}

void TcpAcceptor::Sweep(TimePoint now) {
  sweep_at_ = now + kSweepPeriod;
  for (Guest& guest : guests_) {
    if (now >= guest.until) guest.gives_way = true;
  }
}

int TcpAcceptor::Progress() {
  arrived_ = 0;
  epoll_event events[kEventsMax];
  const int count = ::epoll_wait(epoll_.get(), events, kEventsMax, 0);
  bool accepts = paused_;
  for (int i = 0; i < count; ++i) {
    if (events[i].data.ptr == nullptr) {
      accepts = true;
    } else {
      Settle(*static_cast<Guest*>(events[i].data.ptr));
    }
  }
  if (accepts) Accept();
  if (const TimePoint now = options_.clock->Now(); now >= sweep_at_) Sweep(now);
  std::erase_if(guests_, [this](const Guest& guest) {
    if (guest.gives_way && guest.opened) --opened_count_;
    return guest.gives_way;
  });
  return arrived_;
}

TcpAcceptor::Outcome TcpAcceptor::Move(Guest& guest) {
  if (!guest.tls_done) {
    switch (guest.stream.HandshakeTls()) {
      case TlsSession::Step::kReads:
        return Await(guest, EPOLLIN) ? Outcome::kWaits : Outcome::kFailed;
      case TlsSession::Step::kWrites:
        return Await(guest, EPOLLOUT) ? Outcome::kWaits : Outcome::kFailed;
      case TlsSession::Step::kFailed:
        LogRefusal(guest.stream.fd(), guest.stream.why().message());
        return Outcome::kFailed;
      case TlsSession::Step::kDone:
        guest.tls_done = true;
        guest.challenge =
            Challenge::Accept(options_.purpose, options_.security->secret(),
                              guest.stream.TlsChannel(), options_.own_id, callbacks_.expects);
    }
  }
  return MoveChallenge(guest);
}

TcpAcceptor::Outcome TcpAcceptor::MoveChallenge(Guest& guest) {
  for (;;) {
    if (guest.output.empty()) guest.output = guest.challenge.TakeOutput();
    while (!guest.output.empty()) {
      const iovec piece = {guest.output.data(), guest.output.size()};
      const ssize_t sent = guest.stream.Send({&piece, 1});
      if (sent < 0) return Outcome::kFailed;
      if (sent == 0) return Await(guest, EPOLLOUT) ? Outcome::kWaits : Outcome::kFailed;
      guest.output.erase(0, static_cast<size_t>(sent));
    }
    if (guest.challenge.done()) return Outcome::kArrived;
    guest.message.resize(guest.challenge.wanted_bytes());
    if (guest.message.empty()) return Outcome::kFailed;
    while (guest.read < guest.message.size()) {
      const std::span<char> rest = std::span(guest.message).subspan(guest.read);
      const ssize_t received = guest.stream.Receive(std::as_writable_bytes(rest));
      if (received < 0) return Outcome::kFailed;
      if (received == 0) return Await(guest, EPOLLIN) ? Outcome::kWaits : Outcome::kFailed;
      guest.read += static_cast<size_t>(received);
      if (!guest.challenge.Plausible(std::string_view(guest.message).substr(0, guest.read))) {
        LogRefusal(guest.stream.fd(), "a stranger's bytes: not an Engram Mesh process");
        return Outcome::kFailed;
      }
    }
    guest.read = 0;
    const Status consumed = guest.challenge.Consume(guest.message);
    if (consumed.ok()) {
      guest.opened = true;
      continue;
    }
    LogRefusal(guest.stream.fd(), consumed.message());
    guest.output = guest.challenge.TakeOutput();  // tells the peer why
    const iovec piece = {guest.output.data(), guest.output.size()};
    if (!guest.output.empty()) (void)guest.stream.Send({&piece, 1});
    return Outcome::kFailed;
  }
}

}  // namespace engram::net
