// Number formats of weights and rows, and their exact conversions. fp32 is the computing format
// everywhere.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace engram {

// Element types a checkpoint may hold; names as in safetensors headers.
enum class DType : uint8_t { kF32, kBf16, kF8E4m3, kF8E8m0, kI32, kI64, kU8 };

constexpr size_t SizeOf(DType t) {
  switch (t) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBf16:
      return 2;
    case DType::kI64:
      return 8;
    case DType::kF8E4m3:
    case DType::kF8E8m0:
    case DType::kU8:
      return 1;
  }
  return 0;
}

constexpr std::string_view DTypeName(DType t) {
  switch (t) {
    case DType::kF32:
      return "F32";
    case DType::kBf16:
      return "BF16";
    case DType::kF8E4m3:
      return "F8_E4M3";
    case DType::kF8E8m0:
      return "F8_E8M0";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    case DType::kU8:
      return "U8";
  }
  return "?";
}

constexpr std::optional<DType> ParseDType(std::string_view name) {
  for (DType t : {DType::kF32, DType::kBf16, DType::kF8E4m3, DType::kF8E8m0, DType::kI32,
                  DType::kI64, DType::kU8}) {
    if (DTypeName(t) == name) return t;
  }
  return std::nullopt;
}

// bfloat16: the upper half of a binary32.
struct Bf16 {
  uint16_t bits = 0;
  bool operator==(const Bf16&) const = default;
};

constexpr float ToFloat(Bf16 v) {
  return std::bit_cast<float>(static_cast<uint32_t>(v.bits) << 16);
}

// Round to nearest even; NaN stays NaN (quiet).
constexpr Bf16 ToBf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

// fp8 e4m3 "fn": bias 7, no infinities, NaN = 0x7f / 0xff, largest finite 448, subnormal step 2^-9.
struct Fp8E4m3 {
  uint8_t bits = 0;
  bool operator==(const Fp8E4m3&) const = default;
};

inline constexpr float kFp8E4m3Max = 448.0f;

constexpr float ToFloat(Fp8E4m3 v) {
  const uint32_t sign = static_cast<uint32_t>(v.bits & 0x80u) << 24;
  const uint32_t exponent = (v.bits >> 3) & 0xfu;
  const uint32_t mantissa = v.bits & 0x7u;
  if (exponent == 0xfu && mantissa == 0x7u) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (exponent == 0) {  // subnormal: mantissa * 2^-9, exact in fp32
    const float magnitude = static_cast<float>(mantissa) * 0.001953125f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 120u) << 23) | (mantissa << 20));
}

// Round to nearest even, saturating at +-448; NaN stays NaN.
inline Fp8E4m3 ToFp8E4m3(float f) {
  const uint8_t sign = std::signbit(f) ? 0x80 : 0x00;
  if (std::isnan(f)) return {static_cast<uint8_t>(sign | 0x7fu)};
  const float magnitude = std::fabs(f);
  if (magnitude >= kFp8E4m3Max) return {static_cast<uint8_t>(sign | 0x7eu)};
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude = m * 2^exponent, m in [0.5, 1)
  const int step_log2 = (exponent - 1 < -6 ? -6 : exponent - 1) - 3;
  const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, -step_log2)));
  // steps counts units of the last place; a carry into the next binade falls out of the addition.
  const uint32_t bits = steps < 8 ? steps : (static_cast<uint32_t>(step_log2 + 9) << 3) + steps;
  return {static_cast<uint8_t>(sign | bits)};
}

// ue8m0: an unsigned power-of-two scale, value 2^(bits-127); 0xff is NaN.
struct E8m0 {
  uint8_t bits = 127;
  bool operator==(const E8m0&) const = default;
};

inline float ToFloat(E8m0 v) {
  if (v.bits == 0xff) return std::bit_cast<float>(0x7fc00000u);
  if (v.bits == 0) return std::bit_cast<float>(0x00400000u);  // 2^-127, subnormal in fp32
  return std::bit_cast<float>(static_cast<uint32_t>(v.bits) << 23);
}

}  // namespace engram
