#include "common/table/row_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace engram::table {
namespace {

constexpr size_t kScaleBlock = 32;  // values that share one scale
constexpr int kScaleBias = 127;

// The exponent of the smallest power of two with largest / 2^exponent <= 448 = 0.875 * 2^9.
int ScaleExponent(float largest) {
  if (largest == 0) return -kScaleBias;
  int exponent = 0;
  const float fraction = std::frexp(largest, &exponent);
  return std::clamp(fraction <= 0.875f ? exponent - 9 : exponent - 8, -kScaleBias, kScaleBias);
}

// All 256 values: a load a value instead of its bits taken apart.
const std::array<float, 256>& Fp8Values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> all{};
    for (size_t bits = 0; bits < all.size(); ++bits) {
      all[bits] = ToFloat(Fp8E4m3{static_cast<uint8_t>(bits)});
    }
    return all;
  }();
  return values;
}

void DecodeBlock(std::span<const std::byte> bytes, std::byte scale_byte, std::span<float> values) {
  const float scale = ToFloat(E8m0{static_cast<uint8_t>(scale_byte)});
  const std::array<float, 256>& decoded = Fp8Values();
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = decoded[static_cast<size_t>(bytes[i])] * scale;
  }
}

std::byte EncodeBlock(std::span<const float> values, std::span<std::byte> bytes) {
  float largest = 0;
  for (const float value : values) {
    CHECK(std::isfinite(value)) << value << " has no fp8 form";
    largest = std::max(largest, std::fabs(value));
  }
  const int exponent = ScaleExponent(largest);
  for (size_t i = 0; i < values.size(); ++i) {
    bytes[i] = static_cast<std::byte>(ToFp8E4m3(std::ldexp(values[i], -exponent)).bits);
  }
  return static_cast<std::byte>(exponent + kScaleBias);
}

void CheckSizes(const RowFormat& format, size_t row_bytes, size_t values) {
  CHECK_EQ(row_bytes, static_cast<size_t>(format.row_bytes()));
  CHECK_EQ(values, static_cast<size_t>(format.head_dim));
}

}  // namespace

void DecodeRow(const RowFormat& format, std::span<const std::byte> row, std::span<float> values) {
  CheckSizes(format, row.size(), values.size());
  if (format.encoding == RowEncoding::kBf16) {
    for (size_t i = 0; i < values.size(); ++i) {
      Bf16 value;
      std::memcpy(&value.bits, row.data() + 2 * i, 2);
      values[i] = ToFloat(value);
    }
    return;
  }
  if (format.encoding == RowEncoding::kFp8) {
    const std::array<float, 256>& decoded = Fp8Values();
    for (size_t i = 0; i < values.size(); ++i) values[i] = decoded[static_cast<size_t>(row[i])];
    return;
  }
  const std::span<const std::byte> scales = row.subspan(values.size());
  for (size_t block = 0; block < scales.size(); ++block) {
    DecodeBlock(row.subspan(block * kScaleBlock, kScaleBlock), scales[block],
                values.subspan(block * kScaleBlock, kScaleBlock));
  }
}

void EncodeRow(const RowFormat& format, std::span<const float> values, std::span<std::byte> row) {
  CheckSizes(format, row.size(), values.size());
  if (format.encoding == RowEncoding::kBf16) {
    for (size_t i = 0; i < values.size(); ++i) {
      const Bf16 value = ToBf16(values[i]);
      std::memcpy(row.data() + 2 * i, &value.bits, 2);
    }
    return;
  }
  if (format.encoding == RowEncoding::kFp8) {
    for (size_t i = 0; i < values.size(); ++i) {
      row[i] = static_cast<std::byte>(ToFp8E4m3(values[i]).bits);
    }
    return;
  }
  const std::span<std::byte> scales = row.subspan(values.size());
  for (size_t block = 0; block < scales.size(); ++block) {
    scales[block] = EncodeBlock(values.subspan(block * kScaleBlock, kScaleBlock),
                                row.subspan(block * kScaleBlock, kScaleBlock));
  }
}

void InterleaveRows(const std::byte* weights, size_t weight_bytes, const std::byte* scales,
                    size_t scale_bytes, size_t count, std::byte* out) {
  if (scale_bytes == 8) {  // V4.1: a store, not a call
    for (size_t i = 0; i < count; ++i, weights += weight_bytes, scales += 8) {
      std::memcpy(out, weights, weight_bytes);
      std::memcpy(out + weight_bytes, scales, 8);
      out += weight_bytes + 8;
    }
    return;
  }
  for (size_t i = 0; i < count; ++i, weights += weight_bytes, scales += scale_bytes) {
    std::memcpy(out, weights, weight_bytes);
    std::memcpy(out + weight_bytes, scales, scale_bytes);
    out += weight_bytes + scale_bytes;
  }
}

}  // namespace engram::table
