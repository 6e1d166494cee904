// A server that is not what its client expects: does as a function of the test says with each
// connection.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/check.h"
#include "common/base/owned_fd.h"

namespace engram::memnode {

class StrangeServer {
 public:
  // `serve` has a connection, on a thread of its own, and the first bytes of its request; it
  // returns once Send is false or stopping() is true.
  using Serve =
      std::function<void(const StrangeServer& server, int peer, std::string_view request)>;
  explicit StrangeServer(Serve serve)
      : serve_(std::move(serve)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in where = {};
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(where);
    CHECK_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&where), sizeof(where)), 0);
    CHECK_EQ(::listen(listener_.get(), 16), 0);
    CHECK_EQ(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&where), &length), 0);
    address_ = "127.0.0.1:" + std::to_string(ntohs(where.sin_port));
    thread_ = std::thread([this] { Run(); });
  }
  ~StrangeServer() {
    stopping_ = true;
    thread_.join();
  }

  const std::string& address() const { return address_; }
  bool stopping() const { return stopping_; }
  // False when the peer is gone, or takes nothing while the server stops.
  bool Send(int peer, std::string_view bytes) const {
    while (!bytes.empty() && !stopping_) {
      const ssize_t sent = ::send(peer, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0) {
        bytes.remove_prefix(static_cast<size_t>(sent));
      } else if (errno != EAGAIN) {
        return false;
      } else {
        pollfd waiting = {peer, POLLOUT, 0};
        ::poll(&waiting, 1, 20);
      }
    }
    return !stopping_;
  }
  // Until the peer closes.
  void Hold(int peer) const {
    char rest[4096];
    while (!stopping_) {
      pollfd waiting = {peer, POLLIN, 0};
      if (::poll(&waiting, 1, 20) > 0 && ::recv(peer, rest, sizeof(rest), 0) <= 0) return;
    }
  }

 private:
  void Run() {
    std::vector<std::jthread> connections;
    while (!stopping_) {
      pollfd waiting = {listener_.get(), POLLIN, 0};
      if (::poll(&waiting, 1, 20) <= 0) continue;
      const int peer = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      connections.emplace_back([this, peer] { ServeOne(OwnedFd(peer)); });
    }
  }
  void ServeOne(const OwnedFd& peer) const {
    pollfd asked = {peer.get(), POLLIN, 0};
    for (bool waits = true; waits && !stopping_;) waits = ::poll(&asked, 1, 20) == 0;
    char request[4096];
    const ssize_t bytes = ::recv(peer.get(), request, sizeof(request), MSG_DONTWAIT);
    serve_(*this, peer.get(), {request, static_cast<size_t>(std::max<ssize_t>(bytes, 0))});
  }

  const Serve serve_;
  const OwnedFd listener_;
  std::string address_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;  // last: uses all of the above
};

}  // namespace engram::memnode
