// The registered buffers replies are packed into, and the holder of each. Data thread only. The
// buffer released last is taken first: it is in the cache.
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
    TimePoint since;       // of the send
  };

  // FAILS as AllocateSendBuffer does.
  Status Allocate(net::Transport& transport, size_t count, size_t buffer_bytes);
  // All slots must be free, or their transport past sending.
  void Clear() { slots_.clear(), free_.clear(); }

  size_t free_count() const { return free_.size(); }
  bool idle() const { return free_.size() == slots_.size(); }
  Slot* Take(net::PeerId peer, TimePoint now);
  void Release(Slot* slot);
  // The peer of a send under way since before `limit`, 0 when there is none.
  net::PeerId StuckPeer(TimePoint limit) const;

 private:
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_;
};

}  // namespace engram::memnode
