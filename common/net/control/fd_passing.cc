#include "common/net/control/fd_passing.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "common/base/random_bytes.h"
#include "common/base/threads.h"

namespace engram::net {
namespace {

constexpr Nanos kTokenLife = std::chrono::seconds(10);
constexpr size_t kTokensMax = 256;
constexpr int kShowTokenMs = 200;  // a connection that has shown no token by then is closed

Status SystemError(const char* what) {
  return Unavailable(fmt::format("{}: {}", what, std::strerror(errno)));
}

struct Address {
  sockaddr_un raw = {};
  socklen_t bytes = 0;
};

// Abstract: a name in the network namespace, no file.
Result<Address> AddressOf(const std::string& name) {
  Address address;
  address.raw.sun_family = AF_UNIX;
  if (name.empty() || name.size() + 1 > sizeof(address.raw.sun_path)) {
    return InvalidArgument(fmt::format("unix socket name of {} bytes", name.size()));
  }
  std::memcpy(address.raw.sun_path + 1, name.data(), name.size());
  address.bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

bool ReadableWithin(int fd, int timeout_ms) {
  pollfd entry = {fd, POLLIN, 0};
  return ::poll(&entry, 1, timeout_ms) == 1 && (entry.revents & POLLIN) != 0;
}

// One byte that carries the descriptor.
union ControlSpace {
  cmsghdr aligned;
  char bytes[CMSG_SPACE(sizeof(int))];
};

bool SendFd(int to, int fd) {
  char byte = 'f';
  iovec data = {&byte, 1};
  ControlSpace control = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof(control.bytes);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  return ::sendmsg(to, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

int TakeFd(int from) {
  char byte = 0;
  iovec data = {&byte, 1};
  ControlSpace control = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof(control.bytes);
  if (::recvmsg(from, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1) return -1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int))) {
    return -1;
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return fd;
}

class UnixFdServer : public FdServer {
 public:
  explicit UnixFdServer(int fd) : fd_(fd) {}

  ~UnixFdServer() override {
    if (thread_.joinable()) {
      const uint64_t one = 1;
      (void)!::write(stop_.get(), &one, sizeof(one));
      thread_.join();
    }
  }

  Status Open() {
    name_ = "engram-";
    for (const char c : RandomBytes(16))
      name_ += fmt::format("{:02x}", static_cast<unsigned char>(c));
    ASSIGN_OR_RETURN(const Address address, AddressOf(name_));
    stop_ = OwnedFd(::eventfd(0, EFD_CLOEXEC));
    socket_ = OwnedFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (stop_.get() < 0 || socket_.get() < 0) return SystemError("a socket for local clients");
    if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address.raw), address.bytes) !=
            0 ||
        ::listen(socket_.get(), 64) != 0) {
      return SystemError("listening for local clients");
    }
    ASSIGN_OR_RETURN(thread_, StartThread("local clients", [this] { Run(); }));
    return OkStatus();
  }

  const std::string& socket_name() const override { return name_; }

  Result<std::string> NewToken() override {
    std::string token = RandomBytes(kFdTokenBytes);
    const std::lock_guard lock(mutex_);
    if (tokens_.size() >= kTokensMax) tokens_.pop_front();
    tokens_.emplace_back(token, Clock::Real().Now() + kTokenLife);
    return token;
  }

 private:
  void Run() {
    for (;;) {
      pollfd entries[2] = {{socket_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      ::poll(entries, 2, -1);
      if (entries[1].revents != 0) return;
      const OwnedFd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (client.get() >= 0) Serve(client.get());
    }
  }

  // One at a time: a client shows its token at once, or loses its turn.
  void Serve(int client) {
    if (!ReadableWithin(client, kShowTokenMs)) return;
    char shown[kFdTokenBytes + 1];
    const ssize_t bytes = ::recv(client, shown, sizeof(shown), MSG_DONTWAIT);
    if (bytes != kFdTokenBytes || !Spend({shown, kFdTokenBytes})) return;
    (void)SendFd(client, fd_);
  }

  bool Spend(const std::string& shown) {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(tokens_.begin(), tokens_.end(),
                                    [&](const auto& token) { return token.first == shown; });
    if (found == tokens_.end()) return false;
    const bool good = Clock::Real().Now() < found->second;
    tokens_.erase(found);
    return good;
  }

  const int fd_;
  std::string name_;
  OwnedFd stop_, socket_;
  std::mutex mutex_;
  std::deque<std::pair<std::string, TimePoint>> tokens_;  // guarded by mutex_; with their ends
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<FdServer>> FdServer::Start(int fd) {
  auto server = std::make_unique<UnixFdServer>(fd);
  RETURN_IF_ERROR(server->Open());
  return std::unique_ptr<FdServer>(std::move(server));
}

Result<OwnedFd> ReceiveFd(const std::string& socket_name, const std::string& token, Nanos timeout) {
  ASSIGN_OR_RETURN(const Address address, AddressOf(socket_name));
  const OwnedFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.get() < 0) return SystemError("a socket to the local node");
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.raw), address.bytes) !=
      0) {
    return SystemError("the node's shared memory is not on this host");
  }
  if (::send(socket.get(), token.data(), token.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(token.size())) {
    return SystemError("showing the token for shared memory");
  }
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count();
  if (ReadableWithin(socket.get(), static_cast<int>(milliseconds))) {
    OwnedFd fd(TakeFd(socket.get()));
    if (fd.get() >= 0) return fd;
  }
  return Unavailable("the node did not hand out its shared memory");
}

}  // namespace engram::net
