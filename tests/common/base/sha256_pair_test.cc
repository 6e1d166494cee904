#include "common/base/sha256_pair.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/base/rng.h"

namespace engram {
namespace {

std::vector<std::byte> RandomBytes(Rng& rng, size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.NextBelow(256));
  return bytes;
}

Sha256Digest ByOpenSsl(const std::vector<std::byte>& bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

TEST(Sha256OfTwo, IsOpenSslsOfEachAtEveryLength) {
  Rng rng(1);
  for (size_t count = 0; count < 400; ++count) {
    const auto a = RandomBytes(rng, count), b = RandomBytes(rng, count);
    const auto digests = Sha256OfTwo(a, b);
    ASSERT_EQ(digests[0], ByOpenSsl(a)) << count;
    ASSERT_EQ(digests[1], ByOpenSsl(b)) << count;
  }
}

TEST(Sha256OfTwo, LongOnesUnalignedOnesAndOnesOfTwoLengths) {
  Rng rng(2);
  const auto a = RandomBytes(rng, 1'000'003), b = RandomBytes(rng, 1'000'003);
  EXPECT_EQ(Sha256OfTwo(a, b), (std::array{ByOpenSsl(a), ByOpenSsl(b)}));
  const std::vector<std::byte> tail(a.begin() + 1, a.end());
  EXPECT_EQ(Sha256OfTwo(std::span(a).subspan(1), std::span(b).first(tail.size()))[0],
            ByOpenSsl(tail));
  EXPECT_EQ(Sha256OfTwo(tail, b), (std::array{ByOpenSsl(tail), ByOpenSsl(b)}));
}

TEST(Sha256OfTwo, KnowsThePublishedVector) {
  const std::string_view abc = "abc";
  const auto digests = Sha256OfTwo(std::as_bytes(std::span(abc)), std::as_bytes(std::span(abc)));
  for (const Sha256Digest& digest : digests) {
    EXPECT_EQ(ToHex(digest), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  }
}

}  // namespace
}  // namespace engram
