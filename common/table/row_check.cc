#include "common/table/row_check.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/rng.h"
#include "common/table/row_copy.h"

#ifdef __SSE4_2__
#include <immintrin.h>
#endif

namespace engram::table {
namespace {

uint32_t StartOf(uint32_t layer_index, uint64_t row) {
  return static_cast<uint32_t>(Mix64(row ^ (uint64_t{layer_index} << 48)));
}

uint32_t StoredCheck(const std::byte* stored, uint32_t row_bytes) {
  uint32_t check = 0;
  std::memcpy(&check, stored + row_bytes, sizeof(check));
  return check;
}

#ifdef __SSE4_2__
constexpr size_t kLanes = 4;

uint64_t Load64(const std::byte* p) {
  uint64_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

// True when the four rows have these checks. One chain of crc32 instructions waits 3 cycles for
// each 8 bytes; four side by side do not.
template <typename Bytes>
bool CheckFour(uint32_t layer_index, const uint64_t* rows, const std::byte* const* copies,
               Bytes row_bytes, const uint32_t* checks) {
  const std::byte *const p0 = copies[0], *const p1 = copies[1], *const p2 = copies[2],
                         *const p3 = copies[3];
  // crc32 keeps the register inverted at both ends, as Crc32c does.
  uint64_t a = ~StartOf(layer_index, rows[0]), b = ~StartOf(layer_index, rows[1]),
           c = ~StartOf(layer_index, rows[2]), d = ~StartOf(layer_index, rows[3]);
  size_t at = 0;
  for (; at + 8 <= row_bytes; at += 8) {
    a = _mm_crc32_u64(a, Load64(p0 + at));
    b = _mm_crc32_u64(b, Load64(p1 + at));
    c = _mm_crc32_u64(c, Load64(p2 + at));
    d = _mm_crc32_u64(d, Load64(p3 + at));
  }
  std::array<uint32_t, kLanes> crc = {static_cast<uint32_t>(a), static_cast<uint32_t>(b),
                                      static_cast<uint32_t>(c), static_cast<uint32_t>(d)};
  bool good = true;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    for (size_t i = at; i < row_bytes; ++i) {
      crc[lane] = _mm_crc32_u8(crc[lane], static_cast<uint8_t>(copies[lane][i]));
    }
    good &= ~crc[lane] == checks[lane];
  }
  return good;
}
#endif

// The first row of the block whose copy lacks its check, or the block's size.
template <typename Bytes>
size_t CheckBlock(uint32_t layer_index, std::span<const uint64_t> rows,
                  const std::byte* const* copies, Bytes row_bytes, const uint32_t* checks) {
  size_t i = 0;
#ifdef __SSE4_2__
  while (i + kLanes <= rows.size() &&
         CheckFour(layer_index, &rows[i], copies + i, row_bytes, checks + i)) {
    i += kLanes;
  }
#endif
  for (; i < rows.size(); ++i) {
    if (RowCheck(layer_index, rows[i], {copies[i], row_bytes}) != checks[i]) break;
  }
  return i;
}

}  // namespace

uint32_t RowCheck(uint32_t layer_index, uint64_t row, std::span<const std::byte> bytes) {
  return Crc32c(bytes, StartOf(layer_index, row));
}

void SealRow(uint32_t layer_index, uint64_t row, std::span<std::byte> stored) {
  CHECK_GT(stored.size(), kRowCheckBytes);
  const size_t row_bytes = stored.size() - kRowCheckBytes;
  const uint32_t check = RowCheck(layer_index, row, stored.first(row_bytes));
  std::memcpy(stored.data() + row_bytes, &check, sizeof(check));
}

size_t CopyCheckedRows(uint32_t layer_index, std::span<const uint64_t> rows,
                       const std::byte* const* addresses, uint32_t row_bytes,
                       const uint32_t* places, std::byte* out) {
  const std::span<const std::byte* const> from(addresses, rows.size());
  std::array<uint32_t, kRowsTogether> checks;
  std::array<const std::byte*, kRowsTogether> copies;
  const auto block_from = [&](size_t first) {
    return std::min(kRowsTogether, rows.size() - first);
  };
  return WithRowBytes(row_bytes, [&](auto bytes) -> size_t {
    const size_t stored_bytes = bytes + size_t{kRowCheckBytes};
    PrefetchRows(from.first(block_from(0)), stored_bytes);
    for (size_t first = 0; first < rows.size(); first += kRowsTogether) {
      const size_t count = block_from(first);
      for (size_t i = 0; i < count; ++i) {
        const std::byte* const row = from[first + i];
        std::byte* const copy = out + size_t{places[first + i]} * bytes;
        CopyRow(copy, row, bytes);
        checks[i] = StoredCheck(row, row_bytes);
        copies[i] = copy;
      }
      const size_t next = first + count;
      PrefetchRows(from.subspan(next, block_from(next)), stored_bytes);
      const size_t good =
          CheckBlock(layer_index, rows.subspan(first, count), copies.data(), bytes, checks.data());
      if (good < count) return first + good;
    }
    return rows.size();
  });
}

size_t CopyUncheckedRows(std::span<const std::byte* const> addresses, uint32_t row_bytes,
                         const uint32_t* places, std::byte* out) {
  for (size_t i = 0; i < addresses.size(); ++i) {
    CopyRow(out + size_t{places[i]} * row_bytes, addresses[i], row_bytes);
  }
  return addresses.size();
}

}  // namespace engram::table
