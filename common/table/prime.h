// Primality of 64-bit integers, for the prime moduli of the table layout.
#pragma once

#include <cstdint>

namespace engram::table {

// Exact for every 64-bit value (Miller-Rabin with the first twelve primes as bases).
bool IsPrime(uint64_t value);

}  // namespace engram::table
