// The check that travels with every row: CRC-32C of its bytes, started from its layer and number.
// Computed when a row enters a node's memory from a verified page, compared by the client after the
// last copy, it finds damaged bytes anywhere between, and also a row that was sent for another one.
//
// 4 bytes a row (1.5 % of 264) instead of a CRC computed by the owner for each reply: the owner's
// core is the bottleneck, and checking costs the client 5.5 ns a row (pilot, four rows
// interleaved).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace engram::table {

inline constexpr uint32_t kRowCheckBytes = 4;

// A row as it is held in memory and sent: its bytes, then its check, little-endian.
inline constexpr uint32_t StoredRowBytes(uint32_t row_bytes) { return row_bytes + kRowCheckBytes; }

uint32_t RowCheck(uint32_t layer_index, uint64_t row, std::span<const std::byte> bytes);

// Writes the check behind the row: stored.size() == StoredRowBytes(row_bytes).
void SealRow(uint32_t layer_index, uint64_t row, std::span<std::byte> stored);

// Copies row_bytes of each stored row to its place and checks the copy: row i of `rows` lies at
// addresses[i] and goes to out + places[i] * row_bytes, which no other row shares. Returns the
// index of the first row whose check fails, or rows.size(); what lies at the places of that row and
// of those after it is undefined.
//
// Blocks of rows are copied, the next block is asked for, then the copies are checked: a CRC's long
// chains between two copies keep the memory of the next rows waiting (2 GiB in huge pages, 264-byte
// rows: 65 ns a row against 112, bare gather 48 to 52; rows in the cache take the same either way).
size_t CopyCheckedRows(uint32_t layer_index, std::span<const uint64_t> rows,
                       const std::byte* const* addresses, uint32_t row_bytes,
                       const uint32_t* places, std::byte* out);

// The same without the checks; returns the number of rows. For benchmarks.
size_t CopyUncheckedRows(std::span<const std::byte* const> addresses, uint32_t row_bytes,
                         const uint32_t* places, std::byte* out);

}  // namespace engram::table
