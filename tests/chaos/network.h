// A network inside the test: each host is a network namespace whose eth0 (a TAP device) is a port
// of one Ethernet switch, a thread of the test. So frames of real TCP connections are lost,
// delayed, overtaken and changed without netem, firewall rules or a proxy that ends connections.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <queue>
#include <string>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/owned_fd.h"
#include "common/base/rng.h"
#include "common/base/status.h"

namespace engram::chaos {

// What a host's cable does to each frame, either way, or only to those that the host sends.
struct Cable {
  double lost = 0;     // share of the frames; 1: cut
  double flipped = 0;  // share of the frames with data, one byte each
  Nanos delay{0};
  Nanos jitter{0};  // at most, on top of it: frames overtake each other
  bool only_sent = false;
};

// The calling process goes into network and mount namespaces of its own, so that nothing that the
// test makes is seen by the machine or outlives the test. It must have one thread. The error says
// what this machine or user does not allow.
Status EnterPrivateNamespaces();

class Network {
 public:
  // Host 0 is the calling process, the others are new namespaces. Needs EnterPrivateNamespaces.
  static Result<std::unique_ptr<Network>> Make(size_t host_count, const std::string& work_dir,
                                               uint64_t seed);
  ~Network();

  static std::string Address(size_t host);  // IPv4
  // The command line that runs `argv` on that host; its process id is the program's own.
  std::vector<std::string> On(size_t host, std::vector<std::string> argv) const;
  // A cable without faults is Cable().
  void Set(size_t host, const Cable& cable);

  // Of all cables, since the start.
  uint64_t lost() const { return lost_; }
  uint64_t flipped() const { return flipped_; }

 private:
  using Frame = std::vector<std::byte>;
  struct Port {
    OwnedFd network_namespace, tap;
  };
  struct Waiting {
    TimePoint due;
    uint64_t number;  // frames due at the same time keep their order
    size_t port;
    Frame frame;
    bool operator<(const Waiting& other) const {  // the earliest is on top of the queue
      return due != other.due ? due > other.due : number > other.number;
    }
  };

  explicit Network(uint64_t seed) : rng_(seed) {}
  Status AddHost(bool own_namespace);
  Status SetUpInterface(size_t host, const std::string& work_dir) const;
  void Switch();
  void Receive(size_t port);
  void Forward(size_t from, size_t to, const Frame& frame);
  void SendDue();

  std::vector<Port> ports_;
  std::mutex mutex_;
  std::vector<Cable> cables_;  // guarded by mutex_
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> lost_ = 0, flipped_ = 0;
  // Of the switch's thread.
  Rng rng_;
  uint64_t frames_ = 0;
  std::priority_queue<Waiting> waiting_;
  std::thread thread_;
};

}  // namespace engram::chaos
