// The check of every row: found damage anywhere, a row in another's place, any row size.
#include "common/table/row_check.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "common/base/rng.h"

namespace engram::table {
namespace {

struct Rows {
  Rows(size_t count, uint32_t row_bytes) : bytes(row_bytes), stride(StoredRowBytes(row_bytes)) {
    Rng rng(count * 1000 + row_bytes);
    memory.resize(count * stride);
    for (std::byte& byte : memory) byte = static_cast<std::byte>(rng.NextU64());
    for (size_t i = 0; i < count; ++i) {
      ids.push_back(rng.NextU64() >> 20);
      addresses.push_back(memory.data() + i * stride);
      places.push_back(static_cast<uint32_t>(count - 1 - i));
      SealRow(3, ids[i], std::span(memory).subspan(i * stride, stride));
    }
    out.resize(count * bytes);
  }
  size_t Copy(uint32_t layer = 3) {
    return CopyCheckedRows(layer, ids, addresses.data(), bytes, places.data(), out.data());
  }
  uint32_t bytes;
  size_t stride;
  std::vector<std::byte> memory, out;
  std::vector<uint64_t> ids;
  std::vector<const std::byte*> addresses;
  std::vector<uint32_t> places;
};

TEST(RowCheck, RowsOfAnySizeGoToTheirPlaces) {
  for (const uint32_t row_bytes : {1u, 7u, 8u, 31u, 32u, 100u, 160u, 264u, 513u}) {
    for (const size_t count : {0u, 1u, 3u, 4u, 5u, 60u, 64u, 65u, 88u, 89u, 200u}) {
      Rows rows(count, row_bytes);
      ASSERT_EQ(rows.Copy(), count) << row_bytes;
      for (size_t i = 0; i < count; ++i) {
        const std::byte* placed = rows.out.data() + (count - 1 - i) * row_bytes;
        ASSERT_EQ(std::memcmp(placed, rows.addresses[i], row_bytes), 0) << row_bytes;
      }
    }
  }
}

TEST(RowCheck, EveryDamagedBitIsFoundInItsRow) {
  Rows rows(9, 40);
  for (size_t at = 0; at < rows.memory.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      rows.memory[at] ^= static_cast<std::byte>(1 << bit);
      ASSERT_EQ(rows.Copy(), at / rows.stride) << at;
      rows.memory[at] ^= static_cast<std::byte>(1 << bit);
    }
  }
  EXPECT_EQ(rows.Copy(), 9u);
}

TEST(RowCheck, DamageIsFoundInAnyBlockOfRows) {
  Rows rows(200, 160);
  for (const size_t at : {0u, 63u, 64u, 130u, 199u}) {
    rows.memory[at * rows.stride + 159] ^= std::byte{1};
    ASSERT_EQ(rows.Copy(), at);
    rows.memory[at * rows.stride + 159] ^= std::byte{1};
  }
}

TEST(RowCheck, ARowInAnothersPlaceIsFound) {
  Rows rows(8, 264);
  std::swap(rows.addresses[5], rows.addresses[6]);
  EXPECT_EQ(rows.Copy(), 5u);
  Rows other(8, 264);
  EXPECT_EQ(other.Copy(2), 0u) << "another layer's rows";
}

}  // namespace
}  // namespace engram::table
