// The registered buffers replies are packed into, and who holds each. Data thread only.
#pragma once

#include <memory>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/net/transport.h"

namespace engram::memnode {

class SendRing {
 public:
  struct Slot {
    std::unique_ptr<net::SendBuffer> buffer;
    net::PeerId peer = 0;  // holds it while its send is under way; 0: free
    uint64_t order = 0;    // of the send
  };

  // FAILS as AllocateSendBuffer does.
  Status Allocate(net::Transport& transport, size_t count, size_t buffer_bytes);
  // All slots must be free, or their transport past sending.
  void Clear() { slots_.clear(), free_.clear(); }

  bool empty() const { return free_.empty(); }  // nothing to take
  bool idle() const { return free_.size() == slots_.size(); }
  Slot* Take(net::PeerId peer);
  void Release(Slot* slot);
  // The peer whose send has been under way longest, 0 when none is.
  net::PeerId OldestPeer() const;
  // Sends completed so far.
  uint64_t released() const { return released_; }

 private:
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_;
  uint64_t taken_ = 0;
  uint64_t released_ = 0;
};

}  // namespace engram::memnode
