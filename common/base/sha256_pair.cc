#include "common/base/sha256_pair.h"

#include <algorithm>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace engram {
namespace {

Sha256Digest OfOne(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

#if defined(__x86_64__)

constexpr size_t kBlockBytes = 64;

// FIPS 180-4, section 4.2.2 and 5.3.3.
alignas(64) constexpr std::array<uint32_t, 64> kRound = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

bool HasShaInstructions() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b >> 29 & 1) != 0;
}

// A lane's state as the instructions want it: a b e f and c d g h, highest word first.
struct Lane {
  __m128i abef, cdgh;
};

// Sixteen words at a time, four rounds a step; the lanes' steps alternate.
__attribute__((target("sha,sse4.1"))) void Compress(std::array<Lane, 2>& lanes,
                                                    const std::byte* const (&from)[2],
                                                    size_t blocks) {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bULL, 0x0405060700010203ULL);
  for (size_t block = 0; block < blocks; ++block) {
    __m128i words[2][4];
    const std::array<Lane, 2> before = lanes;
#pragma GCC unroll 16
    for (int step = 0; step < 16; ++step) {
      const __m128i constants =
          _mm_load_si128(reinterpret_cast<const __m128i*>(kRound.data() + 4 * step));
#pragma GCC unroll 2
      for (int l = 0; l < 2; ++l) {
        __m128i(&w)[4] = words[l];
        __m128i& now = w[step % 4];
        if (step < 4) {
          const auto* const at = from[l] + block * kBlockBytes + 16 * step;
          now = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)), big_endian);
        } else {
          const __m128i last = w[(step + 3) % 4];
          const __m128i seven_back = _mm_alignr_epi8(last, w[(step + 2) % 4], 4);
          now = _mm_sha256msg2_epu32(
              _mm_add_epi32(_mm_sha256msg1_epu32(now, w[(step + 1) % 4]), seven_back), last);
        }
        const __m128i sum = _mm_add_epi32(now, constants);
        lanes[l].cdgh = _mm_sha256rnds2_epu32(lanes[l].cdgh, lanes[l].abef, sum);
        lanes[l].abef =
            _mm_sha256rnds2_epu32(lanes[l].abef, lanes[l].cdgh, _mm_shuffle_epi32(sum, 0x0e));
      }
    }
    for (int l = 0; l < 2; ++l) {
      lanes[l].abef = _mm_add_epi32(lanes[l].abef, before[l].abef);
      lanes[l].cdgh = _mm_add_epi32(lanes[l].cdgh, before[l].cdgh);
    }
  }
}

// The end of a message: what is left of it, a one, zeros, and its length in bits.
size_t Pad(std::span<const std::byte> message, std::byte (&tail)[2 * kBlockBytes]) {
  const size_t left = message.size() % kBlockBytes;
  const size_t bytes = left + 9 > kBlockBytes ? 2 * kBlockBytes : kBlockBytes;
  std::fill_n(tail, bytes, std::byte{0});
  std::copy_n(message.end() - static_cast<ptrdiff_t>(left), left, tail);
  tail[left] = std::byte{0x80};
  const uint64_t bits = uint64_t{message.size()} * 8;
  for (size_t i = 0; i < 8; ++i) tail[bytes - 1 - i] = static_cast<std::byte>(bits >> (8 * i));
  return bytes / kBlockBytes;
}

__attribute__((target("sha,sse4.1"))) std::array<Sha256Digest, 2> OfTwo(
    std::span<const std::byte> a, std::span<const std::byte> b) {
  const Lane begin = {
      _mm_set_epi32(0x6a09e667, static_cast<int>(0xbb67ae85), 0x510e527f,
                    static_cast<int>(0x9b05688c)),
      _mm_set_epi32(0x3c6ef372, static_cast<int>(0xa54ff53a), 0x1f83d9ab, 0x5be0cd19)};
  std::array<Lane, 2> lanes = {begin, begin};
  Compress(lanes, {a.data(), b.data()}, a.size() / kBlockBytes);
  std::byte tails[2][2 * kBlockBytes];
  Pad(a, tails[0]);
  Compress(lanes, {tails[0], tails[1]}, Pad(b, tails[1]));
  std::array<Sha256Digest, 2> digests;
  for (size_t l = 0; l < 2; ++l) {
    alignas(16) std::array<uint32_t, 4> abef, cdgh;  // lowest word first: f e b a, h g d c
    _mm_store_si128(reinterpret_cast<__m128i*>(abef.data()), lanes[l].abef);
    _mm_store_si128(reinterpret_cast<__m128i*>(cdgh.data()), lanes[l].cdgh);
    const uint32_t words[] = {abef[3], abef[2], cdgh[3], cdgh[2],
                              abef[1], abef[0], cdgh[1], cdgh[0]};
    for (size_t i = 0; i < 32; ++i) {
      digests[l][i] = static_cast<uint8_t>(words[i / 4] >> (24 - 8 * (i % 4)));
    }
  }
  return digests;
}

#endif

}  // namespace

std::array<Sha256Digest, 2> Sha256OfTwo(std::span<const std::byte> a,
                                        std::span<const std::byte> b) {
#if defined(__x86_64__)
  static const bool kHasInstructions = HasShaInstructions();
  if (kHasInstructions && a.size() == b.size()) return OfTwo(a, b);
#endif
  return {OfOne(a), OfOne(b)};
}

}  // namespace engram
