#include "tests/chaos/network.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tests/chaos/frame.h"
#include "tests/support/process.h"

namespace engram::chaos {
namespace {

constexpr char kNsenter[] = "/usr/bin/nsenter";
constexpr size_t kFrameBytesMax = 2048;
constexpr size_t kWaitingMax = 20'000;  // frames; beyond it they are lost
constexpr auto kLookForStop = std::chrono::milliseconds(50);

Status Refused(const std::string& what) {
  return Unavailable(fmt::format("{}: {}", what, std::strerror(errno)));
}

bool WriteTo(const char* path, const std::string& text) {
  const OwnedFd fd(::open(path, O_WRONLY | O_CLOEXEC));
  return ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// 02:00:00:00:00:NN, NN the host's number.
std::string HardwareAddress(size_t host) { return fmt::format("02:00:00:00:00:{:02x}", host); }

}  // namespace

Status EnterPrivateNamespaces() {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  const bool root = user == 0;
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS | (root ? 0 : CLONE_NEWUSER)) != 0) {
    return Refused("no namespaces for this user");
  }
  if (!root && !(WriteTo("/proc/self/setgroups", "deny") &&
                 WriteTo("/proc/self/uid_map", fmt::format("0 {} 1", user)) &&
                 WriteTo("/proc/self/gid_map", fmt::format("0 {} 1", group)))) {
    return Refused("this user cannot be root of a namespace");
  }
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return Refused("no private mounts");
  }
  return OkStatus();
}

Result<std::unique_ptr<Network>> Network::Make(size_t host_count, const std::string& work_dir,
                                               uint64_t seed) {
  std::unique_ptr<Network> network(new Network(seed));
  for (size_t host = 0; host < host_count; ++host) {
    RETURN_IF_ERROR(network->AddHost(host > 0));
    RETURN_IF_ERROR(network->SetUpInterface(host, work_dir));
  }
  network->cables_.resize(host_count);
  network->thread_ = std::thread([&network = *network] { network.Switch(); });
  return network;
}

Network::~Network() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

// This thread goes into the new namespace to open the TAP device there, and comes back.
Status Network::AddHost(bool own_namespace) {
  constexpr char kThisNamespace[] = "/proc/thread-self/ns/net";
  const OwnedFd home(::open(kThisNamespace, O_RDONLY | O_CLOEXEC));
  if (own_namespace && ::unshare(CLONE_NEWNET) != 0) return Refused("no network namespace");
  Port port;
  port.network_namespace = OwnedFd(::open(kThisNamespace, O_RDONLY | O_CLOEXEC));
  port.tap = OwnedFd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  ifreq request = {};
  std::strcpy(request.ifr_name, "eth0");
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  const bool made = port.tap.get() >= 0 && ::ioctl(port.tap.get(), TUNSETIFF, &request) == 0;
  const Status status = made ? OkStatus() : Refused("no TAP device (/dev/net/tun)");
  if (::setns(home.get(), CLONE_NEWNET) != 0) return Refused("cannot go back to the namespace");
  ports_.push_back(std::move(port));
  return status;
}

Status Network::SetUpInterface(size_t host, const std::string& work_dir) const {
  const std::vector<std::vector<std::string>> commands = {
      {"link", "set", "lo", "up"},
      {"link", "set", "eth0", "address", HardwareAddress(host), "up"},
      {"addr", "add", Address(host) + "/24", "dev", "eth0"}};
  for (std::vector<std::string> command : commands) {
    command.insert(command.begin(), "ip");
    const testing_support::Finished run = testing_support::RunToEnd(On(host, command), work_dir);
    if (run.exit_code != 0) return Unavailable("ip (package iproute2): " + run.err);
  }
  return OkStatus();
}

std::string Network::Address(size_t host) { return fmt::format("10.77.0.{}", host + 1); }

std::vector<std::string> Network::On(size_t host, std::vector<std::string> argv) const {
  const std::string where =
      fmt::format("--net=/proc/{}/fd/{}", ::getpid(), ports_[host].network_namespace.get());
  argv.insert(argv.begin(), {kNsenter, where});
  return argv;
}

void Network::Set(size_t host, const Cable& cable) {
  const std::lock_guard lock(mutex_);
  cables_[host] = cable;
}

void Network::Switch() {
  std::vector<pollfd> polled;
  for (const Port& port : ports_) polled.push_back({port.tap.get(), POLLIN, 0});
  while (!stop_) {
    Nanos wait = kLookForStop;
    if (!waiting_.empty()) {
      wait = std::clamp<Nanos>(waiting_.top().due - Clock::Real().Now(), Nanos{0}, wait);
    }
    const timespec limit = {0, wait.count()};
    ::ppoll(polled.data(), polled.size(), &limit, nullptr);
    for (size_t port = 0; port < ports_.size(); ++port) {
      if (polled[port].revents != 0) Receive(port);
    }
    SendDue();
  }
}

// Bounded, so that frames that are due are not kept waiting by a busy port.
void Network::Receive(size_t port) {
  constexpr int kFramesAtOnce = 32;
  for (int i = 0; i < kFramesAtOnce; ++i) {
    Frame frame(kFrameBytesMax);
    const ssize_t received = ::read(ports_[port].tap.get(), frame.data(), frame.size());
    if (received < 6) return;
    frame.resize(static_cast<size_t>(received));
    const auto to = std::to_integer<size_t>(frame[5]);  // the last byte of HardwareAddress
    const bool for_all = (std::to_integer<unsigned>(frame[0]) & 1) != 0;
    for (size_t other = 0; other < ports_.size(); ++other) {
      if (other != port && (for_all || other == to)) Forward(port, other, frame);
    }
  }
}

void Network::Forward(size_t from, size_t to, const Frame& frame) {
  Waiting next = {Clock::Real().Now(), frames_++, to, frame};
  const auto cables = [&] {
    const std::lock_guard lock(mutex_);
    return std::array{cables_[from], cables_[to].only_sent ? Cable() : cables_[to]};
  }();
  for (const Cable& cable : cables) {
    if (rng_.NextDouble() < cable.lost || waiting_.size() >= kWaitingMax) {
      ++lost_;
      return;
    }
    if (rng_.NextDouble() < cable.flipped && FlipCarriedByte(next.frame, rng_)) ++flipped_;
    next.due += cable.delay;
    if (cable.jitter > Nanos{0}) {
      next.due += Nanos(rng_.NextBelow(static_cast<uint64_t>(cable.jitter.count())));
    }
  }
  waiting_.push(std::move(next));
}

void Network::SendDue() {
  while (!waiting_.empty() && waiting_.top().due <= Clock::Real().Now()) {
    const Waiting& next = waiting_.top();
    // A host that takes no frame (its queue is full) loses it, as with any switch.
    const ssize_t sent = ::write(ports_[next.port].tap.get(), next.frame.data(), next.frame.size());
    if (sent < 0) ++lost_;
    waiting_.pop();
  }
}

}  // namespace engram::chaos
