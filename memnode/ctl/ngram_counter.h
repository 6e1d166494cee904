// Counts the n-grams of one order in bounded memory: an open-addressing table of the n-grams
// themselves, taken once. Exact until it is full. Then the rarest are dropped, at least a quarter
// of them (lossy counting), and from there on counts may be too low by `count_error()`.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/status.h"

namespace engram::ctl {

class NgramCounter {
 public:
  // Bytes a table of this many slots takes, ranking included.
  static uint64_t BytesFor(size_t tokens, uint64_t slots);
  // Of n-grams of `tokens` tokens. `slots`: a power of two, at least 16. RESOURCE_EXHAUSTED:
  // memory.
  static Result<NgramCounter> Create(size_t tokens, uint64_t slots);

  void Add(std::span<const uint32_t> ngram);
  uint64_t CountOf(std::span<const uint32_t> ngram) const;

  uint64_t positions() const { return positions_; }      // n-grams added
  uint64_t distinct() const { return distinct_; }        // held now
  uint64_t count_error() const { return count_error_; }  // 0: counts are exact

  struct Ranked {
    uint64_t count = 0;
    uint64_t slot = 0;
  };
  // The most frequent first; equal counts in an order that hashing gives, the same each time.
  std::vector<Ranked> Rank() const;
  std::span<const uint32_t> NgramAt(uint64_t slot) const;

 private:
  NgramCounter(size_t tokens, uint64_t slots, AlignedBuffer counts, AlignedBuffer ids);
  uint64_t Probe(std::span<const uint32_t> ngram) const;
  void DropRarest();
  void Erase(uint64_t slot);

  size_t tokens_ = 0;
  uint64_t mask_ = 0;
  AlignedBuffer counts_memory_;
  AlignedBuffer ids_memory_;
  uint64_t* counts_ = nullptr;  // [slots], 0: empty
  uint32_t* ids_ = nullptr;     // [slots, tokens]
  uint64_t positions_ = 0;
  uint64_t distinct_ = 0;
  uint64_t count_error_ = 0;
};

}  // namespace engram::ctl
