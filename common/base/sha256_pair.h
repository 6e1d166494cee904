// SHA-256 of two messages at once. One message is bound by the latency of the processor's SHA
// instructions; two side by side take 0.6 of the time of one after the other (sha256_pair_test.cc
// compares every length with OpenSSL). OpenSSL 3.0 has no such call; intel-ipsec-mb 1.3 has, for
// messages of at most 64 KiB.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "common/base/sha256.h"

namespace engram {

// By OpenSSL, one after the other, when the lengths differ or the processor has no such
// instructions.
std::array<Sha256Digest, 2> Sha256OfTwo(std::span<const std::byte> a, std::span<const std::byte> b);

}  // namespace engram
