// Procedural tables: the released model's true size, content frozen, every value finite.
#include "common/table/procedural.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/base/crc32c.h"
#include "common/base/types.h"

namespace engram::table {
namespace {

TEST(Procedural, FullV41HasThePublishedRows) {
  const auto layout = MakeProceduralLayout({.layout = "v41"});
  ASSERT_TRUE(layout.ok()) << layout.status().ToString();
  EXPECT_EQ(layout->layers[0].total_rows, 384'006'168u);
  EXPECT_EQ(layout->layers[1].total_rows, 384'016'682u);
  EXPECT_EQ(layout->row_format.row_bytes(), 264u);
  EXPECT_EQ(layout->rows_per_position(), 24);
}

TEST(Procedural, FullPleHasThePublishedRowsAndNoHashing) {
  const auto bf16 = MakeProceduralLayout({.layout = "qwen-ple"});
  const auto fp8 = MakeProceduralLayout({.layout = "qwen-ple-fp8"});
  ASSERT_TRUE(bf16.ok() && fp8.ok());
  EXPECT_EQ(bf16->layers[0].total_rows, 320'001'536u);
  EXPECT_EQ(fp8->layers[0].total_rows, 320'001'536u);
  EXPECT_EQ(bf16->row_format.row_bytes(), 320u);
  EXPECT_EQ(fp8->row_format.row_bytes(), 160u);
  EXPECT_FALSE(bf16->can_hash());
}

TEST(Procedural, ScaledLayoutHasAboutThatManyRows) {
  const auto layout = MakeProceduralLayout({.layout = "v41", .rows_scale = 0.001});
  ASSERT_TRUE(layout.ok());
  EXPECT_NEAR(static_cast<double>(layout->layers[0].total_rows), 384'000, 4000);
}

TEST(Procedural, BadSpecsAreNamed) {
  EXPECT_EQ(MakeProceduralLayout({.layout = "v42"}).status().code(), Code::kInvalidArgument);
  for (const double scale : {0.0, -1.0, 1.5, std::nan("")}) {
    EXPECT_EQ(MakeProceduralLayout({.layout = "v41", .rows_scale = scale}).status().code(),
              Code::kInvalidArgument)
        << scale;
  }
}

// Frozen: clients and nodes of different builds must agree on every byte.
TEST(Procedural, ContentIsFrozen) {
  const auto digest = [](const RowFormat& format) {
    std::vector<std::byte> row(format.row_bytes());
    uint32_t crc = 0;
    for (uint32_t layer = 0; layer < 2; ++layer) {
      for (const uint64_t id : {uint64_t{0}, uint64_t{1}, uint64_t{384'006'167}}) {
        FillProceduralRow(format, 7, layer, id, row);
        crc = Crc32c(row, crc);
      }
    }
    return crc;
  };
  EXPECT_EQ(digest({RowEncoding::kFp8Scaled, 256}), 3701874631u);
  EXPECT_EQ(digest({RowEncoding::kBf16, 80}), 3704283179u);
  EXPECT_EQ(digest({RowEncoding::kFp8, 160}), 2098957168u);
}

TEST(Procedural, EveryValueIsFiniteAndSmall) {
  const RowFormat fp8 = {RowEncoding::kFp8Scaled, 256};
  const RowFormat bf16 = {RowEncoding::kBf16, 80};
  std::vector<std::byte> row(264);
  for (uint64_t id = 0; id < 500; ++id) {
    FillProceduralRow(fp8, 1, 0, id, row);
    for (size_t i = 0; i < 256; ++i) ASSERT_EQ(static_cast<int>(row[i]) & 0x40, 0);
    for (size_t i = 256; i < 264; ++i) {
      ASSERT_GE(static_cast<int>(row[i]), 120);
      ASSERT_LE(static_cast<int>(row[i]), 127);
    }
    FillProceduralRow(bf16, 1, 0, id, std::span(row).first(160));
    for (size_t i = 1; i < 160; i += 2) ASSERT_EQ(static_cast<int>(row[i]) & 0x40, 0);
  }
}

}  // namespace
}  // namespace engram::table
