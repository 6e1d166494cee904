#include "memnode/load/node_metrics.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace engram::memnode::load {
namespace {

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

Status Fail(const std::string& host_port, const char* what) {
  return Unavailable(fmt::format("metrics of {}: {}: {}", host_port, what, std::strerror(errno)));
}

Result<std::string> ReadAll(int fd, const std::string& host_port, TimePoint end) {
  std::string reply;
  char buffer[64 * 1024];
  while (true) {
    const ssize_t count = recv(fd, buffer, sizeof(buffer), 0);
    if (count == 0) return reply;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Fail(host_port, "reading the page");
    reply.append(buffer, static_cast<size_t>(count));
    if (reply.size() > kPageBytesMax || Clock::Real().Now() > end) {
      return Unavailable(fmt::format("metrics of {}: the page does not end", host_port));
    }
  }
}

}  // namespace

Result<std::string> HttpGet(const std::string& host_port, const std::string& path, Nanos timeout) {
  const TimePoint end = Clock::Real().Now() + timeout;
  const size_t colon = host_port.rfind(':');
  if (colon == std::string::npos) {
    return InvalidArgument(fmt::format("metrics address '{}', expected host:port", host_port));
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host_port.substr(0, colon).c_str(),
                                    host_port.substr(colon + 1).c_str(), &hints, &found);
      error != 0) {
    return Unavailable(fmt::format("metrics of {}: {}", host_port, gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  const Socket socket(::socket(found->ai_family, found->ai_socktype, found->ai_protocol));
  if (socket.fd() < 0) return Fail(host_port, "socket");
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(timeout).count();
  const timeval limit{us / 1'000'000, us % 1'000'000};
  setsockopt(socket.fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(socket.fd(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  if (connect(socket.fd(), found->ai_addr, found->ai_addrlen) != 0) {
    return Fail(host_port, "connecting");
  }
  const std::string request =
      fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", path, host_port);
  if (send(socket.fd(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return Fail(host_port, "sending");
  }
  ASSIGN_OR_RETURN(const std::string reply, ReadAll(socket.fd(), host_port, end));
  const size_t body = reply.find("\r\n\r\n");
  if (!reply.starts_with("HTTP/1.1 200") || body == std::string::npos) {
    return Unavailable(fmt::format("metrics of {}: it answered \"{}\"", host_port,
                                   reply.substr(0, std::min<size_t>(reply.find('\r'), 80))));
  }
  return reply.substr(body + 4);
}

std::optional<double> FindSample(std::string_view page, std::string_view name) {
  while (!page.empty()) {
    const size_t line_end = std::min(page.find('\n'), page.size());
    const std::string line(page.substr(0, line_end));
    page.remove_prefix(std::min(line_end + 1, page.size()));
    if (!line.starts_with(name) || line.size() <= name.size()) continue;
    if (line[name.size()] != ' ' && line[name.size()] != '{') continue;
    const size_t value = line.rfind(' ');
    char* end = nullptr;
    const double number = std::strtod(line.c_str() + value + 1, &end);
    if (end != line.c_str() + value + 1) return number;
  }
  return std::nullopt;
}

Result<double> NodeCpuSeconds(const std::vector<std::string>& nodes) {
  constexpr const char* kMetric = "process_cpu_seconds_total";
  double total = 0;
  for (const std::string& node : nodes) {
    ASSIGN_OR_RETURN(const std::string page, HttpGet(node, "/metrics", std::chrono::seconds(5)));
    const std::optional<double> seconds = FindSample(page, kMetric);
    if (!seconds.has_value()) {
      return NotFound(fmt::format("metrics of {}: no {} on its page", node, kMetric));
    }
    total += *seconds;
  }
  return total;
}

}  // namespace engram::memnode::load
