// Rows as floats: the only code that looks inside a row.
#pragma once

#include <cstddef>
#include <span>

#include "common/table/layout.h"

namespace engram::table {

// values.size() == head_dim, row.size() == row_bytes. Exact (both encodings embed in fp32).
void DecodeRow(const RowFormat& format, std::span<const std::byte> row, std::span<float> values);
// Round to nearest even; fp8: per 32 values the smallest power-of-two scale with amax / scale <=
// 448.
void EncodeRow(const RowFormat& format, std::span<const float> values, std::span<std::byte> row);

// Rows as on the wire from weights and scales that lie apart: weight bytes, then scale bytes,
// `count` times.
void InterleaveRows(const std::byte* weights, size_t weight_bytes, const std::byte* scales,
                    size_t scale_bytes, size_t count, std::byte* out);

}  // namespace engram::table
