// Which sockets a process listens on, as the kernel tells, and raw connections to them: for tests
// that speak to every port a program opens, without being told which.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "common/base/owned_fd.h"

namespace engram::testing_support {

struct Listener {
  enum class Kind { kTcp, kUdp, kUnix };
  Kind kind = Kind::kTcp;
  sockaddr_storage address = {};
  socklen_t address_bytes = 0;
  std::string text;  // "tcp 127.0.0.1:7400", "unix @name"
  int port = 0;      // 0: none
};

// TCP and unix sockets that listen, and UDP sockets that are bound.
std::vector<Listener> ListenersOf(pid_t pid);

// A client's socket; every wait is bounded.
class RawConnection {
 public:
  explicit RawConnection(const Listener& to);

  bool connected() const { return fd_.get() >= 0; }
  // False when the peer takes no more (within 200 ms) or has closed.
  bool Send(std::string_view bytes);
  // What has arrived until nothing comes for `quiet_ms`, at most 64 KiB.
  std::string Receive(int quiet_ms);
  // Fewer when the peer closes or nothing comes for `quiet_ms`.
  std::string ReceiveExactly(size_t count, int quiet_ms);
  void EndSending();
  // Closes so that the peer sees a reset.
  void Reset();

 private:
  OwnedFd fd_;
};

}  // namespace engram::testing_support
