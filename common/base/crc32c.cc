#include "common/base/crc32c.h"

#include <array>
#include <cstring>

#ifdef __SSE4_2__
#include <immintrin.h>
#endif

namespace engram {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected

constexpr std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kTable = MakeTable();

uint32_t Extend(uint32_t crc, const std::byte* p, size_t n) {
  for (; n > 0; ++p, --n) crc = kTable[(crc ^ static_cast<uint32_t>(*p)) & 0xff] ^ (crc >> 8);
  return crc;
}

#ifdef __SSE4_2__
uint64_t Load64(const std::byte* p) {
  uint64_t v;
  std::memcpy(&v, p, 8);
  return v;
}

constexpr size_t kLaneBytes = 256;  // three lanes hide the instruction's latency of 3 cycles

// The CRC register after kLaneBytes zero bytes, as a linear map on its 32 bits, 8 bits at a time.
constexpr std::array<std::array<uint32_t, 256>, 4> MakeShift() {
  std::array<uint32_t, 32> basis{};
  for (uint32_t bit = 0; bit < 32; ++bit) {
    uint32_t crc = uint32_t{1} << bit;
    for (size_t i = 0; i < kLaneBytes; ++i) crc = kTable[crc & 0xff] ^ (crc >> 8);
    basis[bit] = crc;
  }
  std::array<std::array<uint32_t, 256>, 4> shift{};
  for (uint32_t byte = 0; byte < 4; ++byte) {
    for (uint32_t value = 0; value < 256; ++value) {
      uint32_t crc = 0;
      for (uint32_t bit = 0; bit < 8; ++bit) {
        if ((value >> bit & 1) != 0) crc ^= basis[byte * 8 + bit];
      }
      shift[byte][value] = crc;
    }
  }
  return shift;
}
constexpr std::array<std::array<uint32_t, 256>, 4> kShift = MakeShift();

uint32_t ShiftLane(uint32_t crc) {
  return kShift[0][crc & 0xff] ^ kShift[1][crc >> 8 & 0xff] ^ kShift[2][crc >> 16 & 0xff] ^
         kShift[3][crc >> 24];
}

uint32_t ExtendHardware(uint32_t crc, const std::byte* p, size_t n) {
  while (n >= 3 * kLaneBytes) {
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < kLaneBytes; i += 8) {
      a = _mm_crc32_u64(a, Load64(p + i));
      b = _mm_crc32_u64(b, Load64(p + kLaneBytes + i));
      c = _mm_crc32_u64(c, Load64(p + 2 * kLaneBytes + i));
    }
    crc = ShiftLane(ShiftLane(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b)) ^
          static_cast<uint32_t>(c);
    p += 3 * kLaneBytes;
    n -= 3 * kLaneBytes;
  }
  uint64_t wide = crc;
  for (; n >= 8; p += 8, n -= 8) wide = _mm_crc32_u64(wide, Load64(p));
  return Extend(static_cast<uint32_t>(wide), p, n);
}
#endif

}  // namespace

uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t crc) {
#ifdef __SSE4_2__
  return ~ExtendHardware(~crc, bytes.data(), bytes.size());
#else
  return ~Extend(~crc, bytes.data(), bytes.size());
#endif
}

}  // namespace engram
