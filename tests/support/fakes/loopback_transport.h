// The fake transport: messages between transports of one process, on any threads, with faults on
// demand. Faults are named by the address() of a transport and concern what that transport sends,
// or the transport itself.
#pragma once

#include <memory>
#include <string>

#include "common/net/transport.h"

namespace engram::net {

class LoopbackHub {
 public:
  LoopbackHub();
  ~LoopbackHub();
  // Any number; they may outlive the hub. A transport that is destroyed is gone for its peers, as
  // if killed.
  std::unique_ptr<Transport> MakeTransport();

  // All of these from any thread, at any time.
  // Whether the transports of this hub have one-sided reads; off by default. Reads need
  // nothing of the owner: they succeed from one that is stopped, and fail from one that was killed.
  void SetOneSided(bool one_sided);
  // The next `count` messages sent by `address` vanish; the sender sees them sent.
  void DropNext(const std::string& address, int count);
  // The next `count` messages with a body sent by `address` arrive with one bit of the body
  // flipped.
  void CorruptNext(const std::string& address, int count);
  // The next `count` messages sent by `address` arrive twice.
  void DuplicateNext(const std::string& address, int count);
  // The next `count` reads of memory shared by `address` bring it with one bit flipped.
  void CorruptNextReads(const std::string& address, int count);
  // Keeps back what `address` sends until Release, which delivers it in order.
  void Hold(const std::string& address);
  void Release(const std::string& address);
  // Messages kept back now.
  size_t HeldCount(const std::string& address) const;
  // The process behind `address` dies: its peers see the loss, nothing comes from it or goes to it.
  void Kill(const std::string& address);
  // The process behind `address` stops (as by SIGSTOP): its peers see no loss and get no answer
  // until Resume.
  void Stop(const std::string& address);
  void Resume(const std::string& address);

  struct State;  // shared with the transports

 private:
  std::shared_ptr<State> state_;  // shared: transports may outlive the hub
};

}  // namespace engram::net
