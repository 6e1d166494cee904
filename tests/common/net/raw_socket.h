// A blocking client socket for tests that speak a protocol wrongly on purpose.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/owned_fd.h"

namespace engram::net {

class RawSocket {
 public:
  explicit RawSocket(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    const timeval limit = {10, 0};  // no test waits longer for bytes
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    sockaddr_in where = {};
    where.sin_family = AF_INET;
    where.sin_port = htons(port);
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ =
        ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&where), sizeof(where)) == 0;
  }

  bool connected() const { return connected_; }
  bool Send(std::string_view bytes) {
    return ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  // What arrives until the peer closes or `until` is seen (the 10 s limit ends it too).
  std::string Read(std::string_view until = {}) {
    std::string text;
    char buffer[4096];
    while (until.empty() || text.find(until) == std::string::npos) {
      const ssize_t received = ::recv(fd_.get(), buffer, sizeof(buffer), 0);
      if (received <= 0) break;
      text.append(buffer, static_cast<size_t>(received));
    }
    return text;
  }
  // Fills `bytes`; false when the peer closes first.
  bool ReadExactly(std::string* bytes) {
    return ::recv(fd_.get(), bytes->data(), bytes->size(), MSG_WAITALL) ==
           static_cast<ssize_t>(bytes->size());
  }
  // True when the peer closes or resets; false when bytes come or nothing does.
  bool Closed() {
    char byte = 0;
    const ssize_t received = ::recv(fd_.get(), &byte, 1, 0);
    return received == 0 || (received < 0 && errno != EAGAIN);
  }

 private:
  OwnedFd fd_;
  bool connected_ = false;
};

}  // namespace engram::net
