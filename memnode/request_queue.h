// Lookups waiting to be served, first come first served, in slots that keep their memory.
// Data thread only. A slot holds at most one message's ids (256 KiB).
#pragma once

#include <cstddef>
#include <vector>

#include "common/base/clock.h"
#include "common/net/transport.h"
#include "common/net/wire.h"

namespace engram::memnode {

struct Request {
  net::PeerId peer = 0;
  net::LookupHeader header;
  std::vector<net::LookupLayer> layers;
  std::vector<std::byte> ids;
  TimePoint arrived;
  TimePoint deadline;
};

class RequestQueue {
 public:
  explicit RequestQueue(size_t capacity) : slots_(capacity) {}

  bool empty() const { return count_ == 0; }
  bool full() const { return count_ == slots_.size(); }
  size_t capacity() const { return slots_.size(); }
  // The slot to fill; it is queued at once. Not full.
  Request& Push() {
    CHECK(!full());
    return slots_[(first_ + count_++) % slots_.size()];
  }
  // Stays valid, also while others are pushed, until Pop. Not empty.
  Request& Front() {
    CHECK(!empty());
    return slots_[first_];
  }
  void Pop() {
    CHECK(!empty());
    first_ = (first_ + 1) % slots_.size();
    --count_;
  }

 private:
  std::vector<Request> slots_;
  size_t first_ = 0;
  size_t count_ = 0;
};

}  // namespace engram::memnode
