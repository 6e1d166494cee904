// Number formats, checksums, status plumbing: the ground everything else stands on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/crc32c.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/base/spread.h"
#include "common/base/status.h"
#include "common/base/types.h"
#include "tests/support/fakes/fake_clock.h"

namespace engram {
namespace {

TEST(Types, EveryBf16SurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Bf16 v{static_cast<uint16_t>(bits)};
    if (std::isnan(ToFloat(v))) {
      EXPECT_TRUE(std::isnan(ToFloat(ToBf16(ToFloat(v)))));
    } else {
      EXPECT_EQ(ToBf16(ToFloat(v)), v);
    }
  }
}

TEST(Types, Bf16RoundsToNearestEven) {
  EXPECT_EQ(ToBf16(1.0f + 0.00390625f).bits, 0x3f80);          // halfway, to even (down)
  EXPECT_EQ(ToBf16(1.0f + 3 * 0.00390625f).bits, 0x3f82);      // halfway, to even (up)
  EXPECT_EQ(ToBf16(1.0f + 0.00390625f + 1e-6f).bits, 0x3f81);  // just above halfway
}

TEST(Types, EveryFp8SurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const Fp8E4m3 v{static_cast<uint8_t>(bits)};
    if (std::isnan(ToFloat(v))) continue;
    EXPECT_EQ(ToFp8E4m3(ToFloat(v)), v) << bits;
  }
}

TEST(Types, Fp8RoundsToTheNearestOfItsNeighbours) {
  Rng rng(1);
  for (int i = 0; i < 20000; ++i) {
    const auto x = static_cast<float>(
        std::ldexp(rng.NextDouble() * 2 - 1, static_cast<int>(rng.NextBelow(24)) - 14));
    if (std::fabs(x) > kFp8E4m3Max) continue;
    const float y = ToFloat(ToFp8E4m3(x));
    for (uint32_t bits = 0; bits < 256; ++bits) {
      const float z = ToFloat(Fp8E4m3{static_cast<uint8_t>(bits)});
      if (!std::isnan(z)) {
        ASSERT_LE(std::fabs(x - y), std::fabs(x - z)) << x;
      }
    }
  }
  EXPECT_EQ(ToFloat(ToFp8E4m3(1e9f)), 448.0f);
  EXPECT_EQ(ToFloat(ToFp8E4m3(-std::numeric_limits<float>::infinity())), -448.0f);
  EXPECT_TRUE(std::isnan(ToFloat(ToFp8E4m3(std::nanf("")))));
}

TEST(Types, E8m0IsAPowerOfTwo) {
  for (int b = 0; b < 255; ++b)
    EXPECT_EQ(ToFloat(E8m0{static_cast<uint8_t>(b)}), std::ldexp(1.0f, b - 127));
  EXPECT_TRUE(std::isnan(ToFloat(E8m0{255})));
}

TEST(Crc32c, KnownAnswers) {
  const std::string digits = "123456789";
  EXPECT_EQ(Crc32c(std::as_bytes(std::span(digits))), 0xe3069283u);
  const std::vector<std::byte> zeros(32);
  EXPECT_EQ(Crc32c(zeros), 0x8a9136aau);
}

TEST(Crc32c, ContinuesFromAnySplitAndCoversTheInterleavedPath) {
  std::vector<std::byte> data(5000);
  Rng rng(2);
  for (auto& b : data) b = static_cast<std::byte>(rng.NextU64());
  const std::span<const std::byte> all(data);
  const uint32_t whole = Crc32c(all);
  uint32_t bytewise = 0;
  for (size_t i = 0; i < all.size(); ++i) bytewise = Crc32c(all.subspan(i, 1), bytewise);
  EXPECT_EQ(whole, bytewise);
  for (size_t cut : {1u, 767u, 768u, 769u, 1536u, 4999u}) {
    EXPECT_EQ(Crc32c(all.subspan(cut), Crc32c(all.first(cut))), whole) << cut;
  }
}

TEST(Sha256, KnownAnswer) {
  Sha256 sha;
  sha.Update("a");
  sha.Update("bc");
  EXPECT_EQ(ToHex(sha.Finish()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Buffer, LargeBuffersAreHugePageAlignedAndZero) {
  auto buffer = AlignedBuffer::Allocate((3u << 20) + 17, PageBacking::kHugeTlb);
  ASSERT_TRUE(buffer.ok()) << buffer.status().ToString();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % (2u << 20), 0u);
  for (const std::byte b : buffer->bytes()) ASSERT_EQ(b, std::byte{0});
  AlignedBuffer moved = std::move(*buffer);
  EXPECT_EQ(moved.size_bytes(), (3u << 20) + 17);
  EXPECT_EQ(buffer->data(), nullptr);
}

TEST(Buffer, SharedMemoryInHugePagesWhereTheKernelHasThemIsReadByItsMapping) {
  const size_t size_bytes = (size_t{5} << 20) + 17;
  auto buffer = AlignedBuffer::AllocateShared(size_bytes, PageBacking::kTransparent);
  ASSERT_TRUE(buffer.ok()) << buffer.status().ToString();
  buffer->UseHugePages();
  EXPECT_TRUE(buffer->backing() == PageBacking::kSmall || SharedHugePages());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % (2u << 20), 0u);
  for (const std::byte b : buffer->bytes()) ASSERT_EQ(b, std::byte{0});
  for (size_t at = 0; at < size_bytes; at += 4099) buffer->data()[at] = static_cast<std::byte>(at);
  const auto mapped = AlignedBuffer::MapShared(buffer->shared_fd(), size_bytes);
  ASSERT_TRUE(mapped.ok()) << mapped.status().ToString();
  EXPECT_TRUE(std::ranges::equal(mapped->bytes(), buffer->bytes()));
}

TEST(Buffer, RefusesMoreMemoryThanThereIs) {
  const auto buffer = AlignedBuffer::Allocate(size_t{1} << 60, PageBacking::kTransparent);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.status().code(), Code::kResourceExhausted);
}

Result<int> Half(int n) {
  if (n % 2 != 0) return InvalidArgument("odd");
  return n / 2;
}
Result<int> Quarter(int n) {
  ASSIGN_OR_RETURN(const int half, Half(n));
  return Half(half);
}

TEST(Status, ErrorsPropagateWithContext) {
  EXPECT_EQ(*Quarter(8), 2);
  const Status status = Quarter(6).status().WithContext("quarter of 6");
  EXPECT_EQ(status.ToString(), "INVALID_ARGUMENT: quarter of 6: odd");
}

TEST(StatusDeathTest, ValueOfAnErrorAborts) { EXPECT_DEATH((void)*Half(3), "odd"); }

TEST(Rng, IsAFixedFunctionOfItsSeed) {
  Rng a(7), b(7), c(8);
  EXPECT_EQ(a.NextU64(), b.NextU64());
  EXPECT_NE(a.NextU64(), c.NextU64());
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t v = a.NextBelow(10);
    EXPECT_LT(v, 10u);
    seen.insert(v);
  }
  EXPECT_EQ(seen.size(), 10u);
}

TEST(Clock, FakeMovesOnlyWhenTold) {
  FakeClock clock;
  const TimePoint start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(std::chrono::milliseconds(5));
  EXPECT_EQ(clock.Now() - start, std::chrono::milliseconds(5));
}

TEST(MedianInterval, LeavesOutWhatTheBinomialAllows) {
  std::vector<double> values;
  for (int i = 1; i <= 12; ++i) values.push_back(i);
  // Tables of order statistics: n = 12 gives the 3rd and the 10th, n = 6 the ends, n = 5 nothing
  // better.
  EXPECT_EQ(MedianInterval(values).low, 3);
  EXPECT_EQ(MedianInterval(values).high, 10);
  values.resize(6);
  EXPECT_EQ(MedianInterval(values).low, 1);
  EXPECT_EQ(MedianInterval(values).high, 6);
  values.resize(5);
  EXPECT_EQ(MedianInterval(values).low, 1);
  EXPECT_EQ(MedianInterval(values).high, 5);
  EXPECT_EQ(MedianInterval({}).low, 0);
}

}  // namespace
}  // namespace engram
