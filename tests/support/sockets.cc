#include "tests/support/sockets.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

namespace engram::testing_support {
namespace {

namespace fs = std::filesystem;

constexpr int kSendWaitMs = 200;
constexpr size_t kReceiveBytesMax = 64 * 1024;

// Inodes of the process' open sockets.
std::set<std::string> SocketInodes(const std::string& proc) {
  std::set<std::string> inodes;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(proc + "/fd", ignored)) {
    const std::string target = fs::read_symlink(entry.path(), ignored);
    if (target.starts_with("socket:[")) inodes.insert(target.substr(8, target.size() - 9));
  }
  return inodes;
}

std::vector<std::string> Words(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// "0100007F:1CE8", words in host order, into the listener's address.
void SetAddress(const std::string& text, bool v6, const char* kind, Listener* listener) {
  const size_t colon = text.find(':');
  const auto port = static_cast<uint16_t>(std::stoul(text.substr(colon + 1), nullptr, 16));
  uint32_t words[4] = {};
  for (size_t i = 0; i * 8 < colon; ++i) {
    words[i] = static_cast<uint32_t>(std::stoul(text.substr(i * 8, 8), nullptr, 16));
  }
  char name[INET6_ADDRSTRLEN] = {};
  if (v6) {
    sockaddr_in6 to = {};
    to.sin6_family = AF_INET6;
    to.sin6_port = htons(port);
    std::memcpy(&to.sin6_addr, words, sizeof(to.sin6_addr));
    if (IN6_IS_ADDR_UNSPECIFIED(&to.sin6_addr)) to.sin6_addr = in6addr_loopback;
    inet_ntop(AF_INET6, &to.sin6_addr, name, sizeof(name));
    std::memcpy(&listener->address, &to, sizeof(to));
    listener->address_bytes = sizeof(to);
  } else {
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = words[0] == 0 ? htonl(INADDR_LOOPBACK) : words[0];
    inet_ntop(AF_INET, &to.sin_addr, name, sizeof(name));
    std::memcpy(&listener->address, &to, sizeof(to));
    listener->address_bytes = sizeof(to);
  }
  listener->port = port;
  listener->text = std::string(kind) + " " + name + ":" + std::to_string(port);
}

// Columns: number, local address, remote address, state, ..., inode (the tenth).
void AddInternet(const std::string& proc, const char* file, const std::set<std::string>& inodes,
                 std::vector<Listener>* found) {
  const bool udp = std::strncmp(file, "udp", 3) == 0;
  const bool v6 = file[3] == '6';
  std::ifstream in(proc + "/net/" + file);
  std::string line;
  for (std::getline(in, line); std::getline(in, line);) {
    const std::vector<std::string> words = Words(line);
    if (words.size() < 10 || !inodes.contains(words[9])) continue;
    if (words[3] != (udp ? "07" : "0A")) continue;  // unconnected; listening
    Listener listener;
    listener.kind = udp ? Listener::Kind::kUdp : Listener::Kind::kTcp;
    SetAddress(words[1], v6, udp ? "udp" : "tcp", &listener);
    found->push_back(listener);
  }
}

// Columns: number, references, protocol, flags, type, state, inode, path ('@' = abstract).
void AddUnix(const std::string& proc, const std::set<std::string>& inodes,
             std::vector<Listener>* found) {
  std::ifstream in(proc + "/net/unix");
  std::string line;
  for (std::getline(in, line); std::getline(in, line);) {
    const std::vector<std::string> words = Words(line);
    if (words.size() < 8 || !inodes.contains(words[6])) continue;
    if ((std::stoul(words[3], nullptr, 16) & 0x10000) == 0) continue;  // __SO_ACCEPTCON
    Listener listener;
    listener.kind = Listener::Kind::kUnix;
    listener.text = "unix " + words[7];
    sockaddr_un to = {};
    to.sun_family = AF_UNIX;
    std::string path = words[7].substr(0, sizeof(to.sun_path) - 1);
    if (path[0] == '@') path[0] = '\0';
    std::memcpy(to.sun_path, path.data(), path.size());
    listener.address_bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
    std::memcpy(&listener.address, &to, sizeof(to));
    found->push_back(listener);
  }
}

}  // namespace

std::vector<Listener> ListenersOf(pid_t pid) {
  const std::string proc = "/proc/" + std::to_string(pid);
  const std::set<std::string> inodes = SocketInodes(proc);
  std::vector<Listener> found;
  for (const char* file : {"tcp", "tcp6", "udp", "udp6"}) AddInternet(proc, file, inodes, &found);
  AddUnix(proc, inodes, &found);
  return found;
}

RawConnection::RawConnection(const Listener& to) {
  const int type = to.kind == Listener::Kind::kUdp ? SOCK_DGRAM : SOCK_STREAM;
  const int families[] = {SOCK_STREAM, SOCK_SEQPACKET};
  for (const int stream_type : families) {  // a unix socket may keep message bounds
    const int kind = (type == SOCK_DGRAM ? type : stream_type) | SOCK_CLOEXEC;
    fd_ = OwnedFd(socket(to.address.ss_family, kind, 0));
    if (!connected()) return;
    const timeval limit = {0, kSendWaitMs * 1000};
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit,
               sizeof(limit));  // bounds connect as well
    const auto* address = reinterpret_cast<const sockaddr*>(&to.address);
    if (connect(fd_.get(), address, to.address_bytes) == 0) return;
    const bool other_type = errno == EPROTOTYPE;
    fd_ = OwnedFd();
    if (!other_type) return;
  }
}

bool RawConnection::Send(std::string_view bytes) {
  while (connected() && !bytes.empty()) {
    const ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return connected();
}

std::string RawConnection::Receive(int quiet_ms) {
  std::string text;
  char buffer[4096];
  pollfd poll_fd = {fd_.get(), POLLIN, 0};
  while (connected() && text.size() < kReceiveBytesMax && poll(&poll_fd, 1, quiet_ms) > 0) {
    const ssize_t received = recv(fd_.get(), buffer, sizeof(buffer), 0);
    if (received <= 0) break;
    text.append(buffer, static_cast<size_t>(received));
  }
  return text;
}

std::string RawConnection::ReceiveExactly(size_t count, int quiet_ms) {
  std::string text(count, '\0');
  size_t size = 0;
  pollfd poll_fd = {fd_.get(), POLLIN, 0};
  while (connected() && size < count && poll(&poll_fd, 1, quiet_ms) > 0) {
    const ssize_t received = recv(fd_.get(), text.data() + size, count - size, 0);
    if (received <= 0) break;
    size += static_cast<size_t>(received);
  }
  text.resize(size);
  return text;
}

void RawConnection::EndSending() {
  if (connected()) shutdown(fd_.get(), SHUT_WR);
}

void RawConnection::Reset() {
  if (!connected()) return;
  const linger now = {1, 0};
  setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  fd_ = OwnedFd();
}

}  // namespace engram::testing_support
