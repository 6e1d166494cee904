#include "common/table/numpy_rng.h"

#include <bit>

#include "common/base/check.h"

namespace engram::table {
namespace {

using Uint128 = NumpyPcg64::Uint128;
using Pool = std::array<uint32_t, 4>;

constexpr uint32_t kInitA = 0x43b0d7e5u;
constexpr uint32_t kMultiplierA = 0x931e8875u;
constexpr uint32_t kInitB = 0x8b51f9ddu;
constexpr uint32_t kMultiplierB = 0x58f38dedu;
constexpr uint32_t kMixLeft = 0xca01f9ddu;
constexpr uint32_t kMixRight = 0x4973f715u;
constexpr Uint128 kPcgMultiplier =
    (static_cast<Uint128>(0x2360ed051fc65da4ull) << 64) | 0x4385df649fccf645ull;

uint32_t HashMix(uint32_t value, uint32_t* constant, uint32_t multiplier) {
  value ^= *constant;
  *constant *= multiplier;
  value *= *constant;
  return value ^ (value >> 16);
}

uint32_t Mix(uint32_t x, uint32_t y) {
  const uint32_t mixed = kMixLeft * x - kMixRight * y;
  return mixed ^ (mixed >> 16);
}

// The entropy as little-endian 32-bit words, padded with zeros, each word stirred into all others.
Pool MixEntropy(uint64_t entropy) {
  Pool pool = {static_cast<uint32_t>(entropy), static_cast<uint32_t>(entropy >> 32), 0, 0};
  uint32_t constant = kInitA;
  for (uint32_t& word : pool) word = HashMix(word, &constant, kMultiplierA);
  for (size_t from = 0; from < pool.size(); ++from) {
    for (size_t to = 0; to < pool.size(); ++to) {
      if (from != to) pool[to] = Mix(pool[to], HashMix(pool[from], &constant, kMultiplierA));
    }
  }
  return pool;
}

}  // namespace

std::array<uint64_t, 4> SeedSequenceState(uint64_t entropy) {
  const Pool pool = MixEntropy(entropy);
  uint32_t constant = kInitB;
  std::array<uint64_t, 4> state{};
  for (size_t word = 0; word < 8; ++word) {
    const uint64_t bits = HashMix(pool[word % pool.size()], &constant, kMultiplierB);
    state[word / 2] |= bits << (32 * (word % 2));
  }
  return state;
}

NumpyPcg64::NumpyPcg64(uint64_t seed) {
  const std::array<uint64_t, 4> words = SeedSequenceState(seed);
  const Uint128 initial_state = (static_cast<Uint128>(words[0]) << 64) | words[1];
  const Uint128 initial_sequence = (static_cast<Uint128>(words[2]) << 64) | words[3];
  increment_ = (initial_sequence << 1) | 1;
  Step();
  state_ += initial_state;
  Step();
}

void NumpyPcg64::Step() { state_ = state_ * kPcgMultiplier + increment_; }

uint64_t NumpyPcg64::NextU64() {
  Step();
  const auto folded = static_cast<uint64_t>(state_ >> 64) ^ static_cast<uint64_t>(state_);
  return std::rotr(folded, static_cast<int>(state_ >> 122));
}

uint64_t NumpyPcg64::NextBelow(uint64_t bound) {
  CHECK_GT(bound, uint64_t{1} << 32) << "numpy draws 32 bits at a time below that";
  Uint128 product = static_cast<Uint128>(NextU64()) * bound;
  if (static_cast<uint64_t>(product) < bound) {
    const uint64_t threshold = (0 - bound) % bound;
    while (static_cast<uint64_t>(product) < threshold) {
      product = static_cast<Uint128>(NextU64()) * bound;
    }
  }
  return static_cast<uint64_t>(product >> 64);
}

}  // namespace engram::table
