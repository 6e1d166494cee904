// Seeded generators for everything random in the system (weights, sampling, tests). Results are
// part of the contract: they never depend on the standard library's distributions.
#pragma once

#include <cmath>
#include <cstdint>

namespace engram {

// splitmix64's finaliser: a bijective 64-bit mix. Used as a hash of small integers.
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

constexpr uint64_t Mix64(uint64_t a, uint64_t b) { return Mix64(Mix64(a) ^ b); }
constexpr uint64_t Mix64(uint64_t a, uint64_t b, uint64_t c) { return Mix64(Mix64(a, b) ^ c); }

// xoshiro256** seeded by splitmix64.
class Rng {
 public:
  explicit constexpr Rng(uint64_t seed) {
    for (uint64_t i = 0; i < 4; ++i) state_[i] = Mix64(seed + i * 0x9e3779b97f4a7c15ull);
  }

  constexpr uint64_t NextU64() {
    const uint64_t result = RotateLeft(state_[1] * 5, 7) * 9;
    const uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = RotateLeft(state_[3], 45);
    return result;
  }

  // Uniform in [0, bound), bound > 0 (Lemire's multiply-shift with rejection: unbiased).
  uint64_t NextBelow(uint64_t bound) {
    unsigned __int128 product = static_cast<unsigned __int128>(NextU64()) * bound;
    if (static_cast<uint64_t>(product) < bound) {
      const uint64_t threshold = (0 - bound) % bound;
      while (static_cast<uint64_t>(product) < threshold) {
        product = static_cast<unsigned __int128>(NextU64()) * bound;
      }
    }
    return static_cast<uint64_t>(product >> 64);
  }

  // Uniform in [0, 1) with 53 random bits.
  constexpr double NextDouble() { return static_cast<double>(NextU64() >> 11) * 0x1.0p-53; }

  // Standard normal (Box-Muller, one value a call).
  double NextNormal() {
    const double u = 1.0 - NextDouble();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * NextDouble());
  }

 private:
  static constexpr uint64_t RotateLeft(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
  uint64_t state_[4];
};

}  // namespace engram
