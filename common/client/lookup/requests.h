// The requests that a client has under way: a fixed number of slots. A request's id names its slot
// and a number that never comes again, so that an answer that is late, or of a connection that was
// lost, finds nothing.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/client/lookup/step.h"

namespace engram::client {

struct Request {
  uint64_t id = 0;  // 0: the slot is free; else its low 16 bits are the slot
  StepRef step;     // shared with the caller's ticket: either may be the last to need it
  const NodeRequest* what = nullptr;  // the step's
  // Nodes that were asked for these rows before.
  std::array<uint16_t, table::kReplicasMax> tried = {};
  uint8_t tried_count = 0;
  // Asked beside another request for the same rows: that one's id, while it may still be under way.
  uint64_t hedge_of = 0;
  uint32_t hedges = 0;                     // asked beside this one, and under way
  bool late = false;                       // it has been looked at because it was
  bool hedged = false;                     // another node was asked as well
  TimePoint next_look = TimePoint::max();  // unless it has ended
  uint32_t rows_missing = 0;
  bool sent = false;     // counts in its node's window
  bool counted = true;   // among the requests under way
  TimePoint sent_at;     // the round it was sent in; before, that it was taken in
  uint32_t section = 0;  // one-sided: the next rows to read
  uint32_t first = 0;
  const NodeRequest& plan() const { return *what; }
};

// The loop's own; no lock.
class RequestTable {
 public:
  static constexpr uint32_t kSlotsMax = 0xffff;

  explicit RequestTable(uint32_t slots) : slots_(slots) {
    CHECK_LE(slots, kSlotsMax);
    for (uint32_t slot = slots; slot > 0; --slot) free_.push_back(slot - 1);
  }

  // There is a free slot: no more requests are admitted than there are slots.
  Request& Take(StepRef step, const NodeRequest& what) {
    CHECK(!free_.empty());
    const uint32_t slot = free_.back();
    free_.pop_back();
    Request& request = slots_[slot];
    request = Request();
    request.id = next_number_++ << kSlotBits | slot;
    request.step = std::move(step);
    request.what = &what;
    request.rows_missing = what.rows;
    return request;
  }
  Request* Find(uint64_t id) {
    const size_t slot = id & kSlotsMax;
    return id != 0 && slot < slots_.size() && slots_[slot].id == id ? &slots_[slot] : nullptr;
  }
  void Free(Request& request) {
    request.id = 0;
    request.step.reset();
    free_.push_back(static_cast<uint32_t>(&request - slots_.data()));
  }
  // Free ones too.
  std::span<Request> slots() { return slots_; }

 private:
  static constexpr int kSlotBits = 16;
  std::vector<Request> slots_;
  std::vector<uint32_t> free_;
  uint64_t next_number_ = 1;
};

}  // namespace engram::client
