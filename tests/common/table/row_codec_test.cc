// Rows to floats and back, for both encodings.
#include "common/table/row_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/base/rng.h"

namespace engram::table {
namespace {

constexpr RowFormat kFp8{RowEncoding::kFp8Scaled, 64};
constexpr RowFormat kBf16{RowEncoding::kBf16, 5};

std::vector<std::byte> Encode(const RowFormat& format, const std::vector<float>& values) {
  std::vector<std::byte> row(format.row_bytes());
  EncodeRow(format, values, row);
  return row;
}

std::vector<float> Decode(const RowFormat& format, const std::vector<std::byte>& row) {
  std::vector<float> values(static_cast<size_t>(format.head_dim));
  DecodeRow(format, row, values);
  return values;
}

TEST(RowCodec, Bf16IsLittleEndianAndRoundsToNearestEven) {
  const std::vector<float> values = {1.0f, -2.5f, 0x1.01p0f, 0x1.03p0f, 0x1.0101p0f};
  const std::vector<std::byte> row = Encode(kBf16, values);
  EXPECT_EQ(row[0], std::byte{0x80});
  EXPECT_EQ(row[1], std::byte{0x3f});
  EXPECT_EQ(Decode(kBf16, row), (std::vector<float>{1.0f, -2.5f, 0x1.00p0f, 0x1.04p0f, 0x1.02p0f}));
}

TEST(RowCodec, Fp8ValuesAreScaledByTheirBlocksPowerOfTwo) {
  std::vector<std::byte> row(kFp8.row_bytes(), std::byte{0x38});  // 1.0
  row[0] = std::byte{0xfe};                                       // -448
  row[32] = std::byte{0x01};                                      // 2^-9
  row[64] = std::byte{127 + 3};
  row[65] = std::byte{127 - 20};
  const std::vector<float> values = Decode(kFp8, row);
  EXPECT_EQ(values[0], -3584.0f);
  EXPECT_EQ(values[31], 8.0f);
  EXPECT_EQ(values[32], 0x1p-29f);
  EXPECT_EQ(values[63], 0x1p-20f);
}

TEST(RowCodec, ScaleIsTheSmallestThatHoldsTheLargestValue) {
  const auto scale_of = [](float largest) {
    std::vector<float> values(64, 0.0f);
    values[7] = -largest;
    return std::to_integer<int>(Encode(kFp8, values)[64]) - 127;
  };
  EXPECT_EQ(scale_of(448.0f), 0);
  EXPECT_EQ(scale_of(std::nextafter(448.0f, 1000.0f)), 1);
  EXPECT_EQ(scale_of(224.0f), -1);
  EXPECT_EQ(scale_of(1.0f), -8);
  EXPECT_EQ(scale_of(0x1p-149f), -127);
  EXPECT_EQ(scale_of(0x1.fffffep127f), 120);
}

TEST(RowCodec, EncodingIsWithinHalfAStepAndIdempotent) {
  Rng rng(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<float> values;
    const int exponent = static_cast<int>(rng.NextBelow(200)) - 100;
    for (int i = 0; i < 64; ++i)
      values.push_back(std::ldexp(static_cast<float>(rng.NextNormal()), exponent));
    const std::vector<std::byte> row = Encode(kFp8, values);
    const std::vector<float> decoded = Decode(kFp8, row);
    for (size_t i = 0; i < 64; ++i) {
      const float scale = std::ldexp(1.0f, std::to_integer<int>(row[64 + i / 32]) - 127);
      const float step = std::max(std::fabs(values[i]) / 16, scale * 0x1p-10f);
      ASSERT_LE(std::fabs(decoded[i] - values[i]), step) << values[i];
    }
    EXPECT_EQ(Decode(kFp8, Encode(kFp8, decoded)), decoded);
  }
}

TEST(RowCodec, PlainFp8ValuesHaveNoScale) {
  const RowFormat plain{RowEncoding::kFp8, 160};
  ASSERT_EQ(plain.row_bytes(), 160u);
  std::vector<std::byte> row(160, std::byte{0x38});  // 1.0
  row[0] = std::byte{0xfe};                          // -448
  row[159] = std::byte{0x01};                        // 2^-9
  const std::vector<float> values = Decode(plain, row);
  EXPECT_EQ(values[0], -448.0f);
  EXPECT_EQ(values[80], 1.0f);
  EXPECT_EQ(values[159], 0x1p-9f);
  EXPECT_EQ(Encode(plain, values), row);
}

TEST(RowCodec, ZerosStayZeros) {
  const std::vector<float> zeros(64, 0.0f);
  EXPECT_EQ(Decode(kFp8, Encode(kFp8, zeros)), zeros);
}

TEST(RowCodecDeathTest, WrongSizesAndInfinitiesAreLoud) {
  std::vector<float> values(64);
  std::vector<std::byte> row(kFp8.row_bytes() - 1);
  EXPECT_DEATH(DecodeRow(kFp8, row, values), "row_bytes");
  row.resize(kFp8.row_bytes());
  values[3] = INFINITY;
  EXPECT_DEATH(EncodeRow(kFp8, values, row), "no fp8 form");
}

}  // namespace
}  // namespace engram::table
