// Lookups waiting to be served, one line for each priority, in slots that keep their memory. Within
// a line requests take turns. Data thread only. A slot holds at most one message's ids (256 KiB).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/net/transport.h"
#include "common/net/wire.h"
#include "memnode/tables/cold_reader.h"

namespace engram::memnode {

struct Request {
  net::PeerId peer = 0;
  net::LookupHeader header;
  std::vector<net::LookupLayer> layers;
  std::vector<std::byte> ids;
  TimePoint arrived;
  TimePoint deadline;
  // What has been answered: `layer` of layers is under way, its rows before `first` are sent.
  uint32_t layer = 0;
  uint32_t first = 0;
  size_t ids_before = 0;            // of the layers before
  uint32_t turn_rows = 0;           // sent in this turn
  std::shared_ptr<ColdBatch> cold;  // its rows that were not in memory; null: not looked yet

  size_t rows() const { return ids.size() / header.id_bytes; }
  bool done() const { return layer == layers.size(); }
};

class RequestQueue {
 public:
  explicit RequestQueue(size_t capacity) : slots_(capacity) {
    for (Line& line : lines_) line.order.resize(capacity);
    for (Request& slot : slots_) free_.push_back(&slot);
  }

  bool empty() const { return free_.size() == slots_.size(); }
  bool full() const { return free_.empty(); }
  size_t capacity() const { return slots_.size(); }
  size_t size(size_t priority) const { return lines_[priority].count; }
  size_t size() const { return slots_.size() - free_.size(); }

  // The slot to fill; it is last of its line at once. Not full.
  Request& Push(size_t priority) {
    CHECK(!full());
    Request* slot = free_.back();
    free_.pop_back();
    lines_[priority].PushBack(slot);
    return *slot;
  }
  // Stays valid while others are pushed, until it is popped. The line is not empty.
  Request& Front(size_t priority) { return *lines_[priority].Front(); }
  void Pop(size_t priority) {
    Request* slot = lines_[priority].PopFront();
    slot->cold.reset();
    free_.push_back(slot);
  }
  // The first of the line becomes its last.
  void Rotate(size_t priority) { lines_[priority].PushBack(lines_[priority].PopFront()); }

 private:
  struct Line {
    std::vector<Request*> order;  // a ring
    size_t first = 0;
    size_t count = 0;

    Request* Front() const {
      CHECK_GT(count, 0u);
      return order[first];
    }
    void PushBack(Request* slot) { order[(first + count++) % order.size()] = slot; }
    Request* PopFront() {
      Request* slot = Front();
      first = (first + 1) % order.size();
      --count;
      return slot;
    }
  };

  std::vector<Request> slots_;
  std::vector<Request*> free_;
  std::array<Line, net::kPriorityCount> lines_;
};

}  // namespace engram::memnode
