// A page at rest: rows, then an 8-byte trailer of CRC-32C (over rows and count) and row count, both
// little-endian. About 4 KiB; the last page of a layer may hold fewer rows and is shorter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/base/status.h"

namespace engram::memnode {

inline constexpr size_t kPageTrailerBytes = 8;

// Replaces `page` (capacity is kept) by the page of `rows`, whole rows of row_bytes each.
void EncodePage(std::span<const std::byte> rows, uint32_t row_bytes, std::string* page);

// The rows inside `page`. DATA_LOSS says what does not match; the caller knows which page it is.
Result<std::span<const std::byte>> DecodePage(std::span<const std::byte> page, uint32_t row_bytes,
                                              uint64_t expected_rows);

}  // namespace engram::memnode
