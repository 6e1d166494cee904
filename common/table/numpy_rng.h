// The part of numpy's random generator that the hash multipliers are defined by: SeedSequence,
// PCG64 (XSL-RR 128/64) and Generator.integers, bit for bit.
#pragma once

#include <array>
#include <cstdint>

namespace engram::table {

// SeedSequence(entropy).generate_state(4, uint64).
std::array<uint64_t, 4> SeedSequenceState(uint64_t entropy);

// numpy.random.default_rng(seed), 64-bit draws only.
class NumpyPcg64 {
 public:
  using Uint128 = unsigned __int128;

  explicit NumpyPcg64(uint64_t seed);

  uint64_t NextU64();
  // Generator.integers(0, bound) for bound > 2^32, where numpy takes its 64-bit Lemire path.
  uint64_t NextBelow(uint64_t bound);

  Uint128 state() const { return state_; }
  Uint128 increment() const { return increment_; }

 private:
  void Step();

  Uint128 state_ = 0;
  Uint128 increment_ = 0;
};

}  // namespace engram::table
