// Counts the n-grams of one order in bounded memory: an open-addressing table of the n-grams
// themselves, taken once. Exact until it is full. Then the rarest are dropped, at least a quarter
// of them (lossy counting), and from there on counts may be too low by up to count_error().
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/status.h"

namespace engram::ctl {

class NgramCounter {
 public:
  static constexpr uint64_t kSlotsMin = 16;

  // Memory of a counter of n-grams of `tokens` tokens, with what Rank returns.
  static uint64_t BytesFor(size_t tokens, uint64_t slots);
  // RESOURCE_EXHAUSTED: memory.
  static Result<NgramCounter> Create(size_t tokens, uint64_t slots);

  // Counts every n-gram in `ids`, oldest token first.
  void AddRun(std::span<const uint32_t> ids);
  uint64_t CountOf(std::span<const uint32_t> ngram) const;

  uint64_t positions() const { return positions_; }      // n-grams added
  uint64_t distinct() const { return distinct_; }        // of them held now
  uint64_t count_error() const { return count_error_; }  // 0: nothing was dropped

  struct Ranked {
    uint64_t count = 0;
    uint64_t slot = 0;
  };
  // The most frequent first; equal counts in the order of their hashes, the same each time.
  std::vector<Ranked> Rank() const;
  std::span<const uint32_t> NgramAt(uint64_t slot) const {
    return {ids() + slot * tokens_, tokens_};
  }

 private:
  NgramCounter(size_t tokens, uint64_t slots, AlignedBuffer counts, AlignedBuffer ids);
  uint64_t* counts() { return reinterpret_cast<uint64_t*>(counts_.data()); }
  const uint64_t* counts() const { return reinterpret_cast<const uint64_t*>(counts_.data()); }
  uint32_t* ids() { return reinterpret_cast<uint32_t*>(ids_.data()); }
  const uint32_t* ids() const { return reinterpret_cast<const uint32_t*>(ids_.data()); }

  uint64_t HomeOf(const uint32_t* ngram) const;
  uint64_t Probe(const uint32_t* ngram, uint64_t home) const;
  void Add(const uint32_t* ngram, uint64_t home);
  void DropRarest();
  void DropUpTo(uint64_t count);
  void Erase(uint64_t slot);

  size_t tokens_ = 0;
  uint64_t slots_ = 0;
  AlignedBuffer counts_;  // uint64 [slots], 0: empty
  AlignedBuffer ids_;     // uint32 [slots, tokens]
  uint64_t positions_ = 0;
  uint64_t distinct_ = 0;
  uint64_t count_error_ = 0;
};

}  // namespace engram::ctl
