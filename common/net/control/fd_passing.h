// Handing an open file (a node's arena) to a process on the same host: an abstract unix socket and
// a one-time token. Where the host or its network namespace is another one, the socket cannot be
// reached, which is how a client finds out.
#pragma once

#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/owned_fd.h"
#include "common/base/status.h"

namespace engram::net {

inline constexpr size_t kFdTokenBytes = 16;

class FdServer {
 public:
  // Serves read-only `fd`, which outlives it, on a thread of its own.
  static Result<std::unique_ptr<FdServer>> Start(int fd);
  virtual ~FdServer() = default;  // closes and joins
  // The socket's name; unguessable, so that two nodes on a host do not meet.
  virtual const std::string& socket_name() const = 0;
  // A token good for one ReceiveFd within 10 s; any thread. The oldest is forgotten beyond 256.
  virtual Result<std::string> NewToken() = 0;
};

// UNAVAILABLE: no such socket here (another host), or it gave nothing within `timeout`.
Result<OwnedFd> ReceiveFd(const std::string& socket_name, const std::string& token, Nanos timeout);

}  // namespace engram::net
