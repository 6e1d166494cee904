#include "common/table/prime.h"

#include <array>
#include <bit>

namespace engram::table {
namespace {

// No composite below 3.3e24 passes all twelve (Sorenson and Webster, 2015).
constexpr std::array<uint64_t, 12> kBases = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};

uint64_t MultiplyModulo(uint64_t a, uint64_t b, uint64_t modulus) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b % modulus);
}

uint64_t PowerModulo(uint64_t base, uint64_t exponent, uint64_t modulus) {
  uint64_t power = 1;
  for (base %= modulus; exponent != 0; exponent >>= 1) {
    if ((exponent & 1) != 0) power = MultiplyModulo(power, base, modulus);
    base = MultiplyModulo(base, base, modulus);
  }
  return power;
}

// Whether `base` proves the odd `value` composite.
bool IsWitness(uint64_t base, uint64_t value) {
  const int twos = std::countr_zero(value - 1);
  uint64_t x = PowerModulo(base, (value - 1) >> twos, value);
  if (x == 1 || x == value - 1) return false;
  for (int i = 1; i < twos; ++i) {
    x = MultiplyModulo(x, x, value);
    if (x == value - 1) return false;
  }
  return true;
}

}  // namespace

bool IsPrime(uint64_t value) {
  if (value < 2) return false;
  for (const uint64_t base : kBases) {
    if (value % base == 0) return value == base;
  }
  for (const uint64_t base : kBases) {
    if (IsWitness(base, value)) return false;
  }
  return true;
}

}  // namespace engram::table
