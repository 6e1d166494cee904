#include "common/net/tcp_acceptor.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/net/tcp_address.h"
#include "common/obs/log.h"

namespace engram::net {
namespace {

constexpr size_t kGuestsMax = 128;
constexpr int kBacklog = 256;
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
  epoll_event event = {};
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
  const int operation = guest.events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  guest.events = events;
  return ::epoll_ctl(epoll_.get(), operation, guest.stream.fd(), &event) == 0;
}

// Who cannot be accepted would keep epoll awake.
void TcpAcceptor::Pause() {
  paused_ = true;
  paused_until_ = Clock::Real().Now() + kAcceptRetry;
  epoll_event none = {};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.get(), &none);
}

// The oldest that has not said a true opening gives way, else the oldest.
void TcpAcceptor::MakeRoom() {
  const auto silent =
      std::ranges::find_if(guests_, [](const Guest& guest) { return !guest.opened; });
  guests_.erase(silent == guests_.end() ? guests_.begin() : silent);
}

void TcpAcceptor::Accept() {
  if (paused_) {
    if (Clock::Real().Now() < paused_until_) return;
    epoll_event event = {};
    event.events = EPOLLIN;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), &event) != 0) return;
    paused_ = false;
  }
  for (int i = 0; i < kAcceptsMax; ++i) {
    const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && NeedsRest(errno)) return Pause();
    if (fd < 0) return;
    if (guests_.size() >= kGuestsMax) MakeRoom();
    Guest guest(TcpStream(fd),
                Challenge::Accept(options_.purpose, "", "", options_.own_id, callbacks_.expects),
                Clock::Real().Now() + options_.timeout);
    guest.stream.SetNoDelay();
    if (guest.stream.StartTls(*options_.security, false).ok()) guests_.push_back(std::move(guest));
  }
}

int TcpAcceptor::Progress() {
  Accept();
  const TimePoint now = Clock::Real().Now();
  int arrived = 0;
  for (auto guest = guests_.begin(); guest != guests_.end();) {
    const Outcome outcome = now >= guest->until ? Outcome::kFailed : Move(*guest);
    if (outcome == Outcome::kArrived) {
      epoll_event none = {};
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, guest->stream.fd(), &none);
      callbacks_.arrived(guest->challenge.peer_id(), std::move(guest->stream));
      ++arrived;
    }
    guest = outcome == Outcome::kWaits ? std::next(guest) : guests_.erase(guest);
  }
  return arrived;
}

TcpAcceptor::Outcome TcpAcceptor::Move(Guest& guest) {
  if (!guest.tls_done) {
    switch (guest.stream.HandshakeTls()) {
      case TlsSession::Step::kReads:
        return Await(guest, EPOLLIN) ? Outcome::kWaits : Outcome::kFailed;
      case TlsSession::Step::kWrites:
        return Await(guest, EPOLLOUT) ? Outcome::kWaits : Outcome::kFailed;
      case TlsSession::Step::kFailed:
        obs::LogWarn(fmt::format("connection refused why={}", guest.stream.why().message()));
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
        obs::LogWarn("connection refused why=a stranger's bytes: not an Engram Mesh process");
        return Outcome::kFailed;
      }
    }
    guest.read = 0;
    const Status consumed = guest.challenge.Consume(guest.message);
    guest.opened = consumed.ok();
    if (consumed.ok()) continue;
    obs::LogWarn(fmt::format("connection refused why={}", consumed.message()));
    guest.output = guest.challenge.TakeOutput();  // tells the peer why
    const iovec piece = {guest.output.data(), guest.output.size()};
    if (!guest.output.empty()) (void)guest.stream.Send({&piece, 1});
    return Outcome::kFailed;
  }
}

}  // namespace engram::net
