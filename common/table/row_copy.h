// Copying rows whose size is known only at run time: asking for their memory ahead of time, and a
// copy without a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace engram::table {

// Rows asked for together, by a loop that does nothing else, before they are copied. An instruction
// that asks for a page the TLB lacks stays in the processor's window until the page is found, so
// the fewer instructions a row has in that loop, the more rows are under way. Asking for each row
// 24 ahead between two copies instead takes 0.90 to 0.96 of the time in one state of the machine
// that measured it and 1.12 to 1.23 in another, which lasts for minutes; rows of 1,364 bytes take
// the same (Zen 5, 2 GiB in 2-MiB pages in a virtual machine).
inline constexpr size_t kRowsTogether = 64;
inline constexpr size_t kCacheLineBytes = 64;

// Row sizes are taken as a number or as a std::integral_constant.
template <typename Bytes>
inline void PrefetchRow(const std::byte* row, Bytes bytes) {
  for (size_t at = 0; at < bytes; at += kCacheLineBytes) __builtin_prefetch(row + at);
  __builtin_prefetch(row + bytes - 1);  // rows do not start at a line
}

template <typename Bytes>
inline void PrefetchRows(std::span<const std::byte* const> rows, Bytes bytes) {
  for (const std::byte* const row : rows) PrefetchRow(row, bytes);
}

// A register of 32 bytes, from and to anywhere. gcc 12 makes two 16-byte moves of memcpy(32), which
// copy 264-byte rows at 0.73 to 0.84 of the speed.
using CopyPiece [[gnu::vector_size(32), gnu::aligned(1), gnu::may_alias]] = char;

// `bytes` >= 1. Blocks of 256 bytes, then pieces of 32, the last one overlapping the one before.
template <typename Bytes>
inline void CopyRow(std::byte* to, const std::byte* from, Bytes bytes) {
  constexpr size_t kPiece = sizeof(CopyPiece);
  constexpr size_t kBlock = 8 * kPiece;
  const auto copy_piece = [to, from](size_t at) {
    *reinterpret_cast<CopyPiece*>(to + at) = *reinterpret_cast<const CopyPiece*>(from + at);
  };
  if (bytes < kPiece) {
    std::memcpy(to, from, bytes);
    return;
  }
  size_t at = 0;
  for (; at + kBlock <= bytes; at += kBlock) {
#pragma GCC unroll 8
    for (size_t piece = 0; piece < kBlock; piece += kPiece) copy_piece(at + piece);
  }
  for (; at + kPiece <= bytes; at += kPiece) copy_piece(at);
  copy_piece(bytes - kPiece);
}

// loop(bytes), compiled apart for the rows of released models, with and without their checks: the
// copy of a known size is half the instructions.
template <typename Loop>
decltype(auto) WithRowBytes(size_t bytes, Loop&& loop) {
  switch (bytes) {
    case 160:
      return loop(std::integral_constant<size_t, 160>());
    case 164:
      return loop(std::integral_constant<size_t, 164>());
    case 264:
      return loop(std::integral_constant<size_t, 264>());
    case 268:
      return loop(std::integral_constant<size_t, 268>());
    default:
      return loop(bytes);
  }
}

// Copies the first `bytes` of each row to `out`, one after the other.
void CopyRows(std::span<const std::byte* const> rows, size_t bytes, std::byte* out);

}  // namespace engram::table
