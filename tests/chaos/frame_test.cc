// A byte changed on the way passes for a good one: TCP's checksum is right, nothing else differs.
#include "tests/chaos/frame.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace engram::chaos {
namespace {

constexpr size_t kTcpAt = 14 + 20, kDataAt = kTcpAt + 20, kChecksumAt = kTcpAt + 16;

// An Ethernet frame of IPv4 and TCP with so much data; its TCP checksum is right.
std::vector<std::byte> Frame(size_t data_bytes) {
  std::vector<std::byte> frame(kDataAt + data_bytes);
  Rng rng(data_bytes);
  for (size_t i = kDataAt; i < frame.size(); ++i) frame[i] = static_cast<std::byte>(rng.NextU64());
  const size_t ip_bytes = frame.size() - 14;
  frame[12] = std::byte{0x08};
  frame[14] = std::byte{0x45};
  frame[16] = static_cast<std::byte>(ip_bytes >> 8);
  frame[17] = static_cast<std::byte>(ip_bytes & 0xff);
  frame[14 + 9] = std::byte{6};
  frame[kTcpAt + 12] = std::byte{0x50};
  return frame;
}

// Of the TCP part, without the pseudo header, which no change of a byte touches.
uint32_t Checksum(const std::vector<std::byte>& frame) {
  uint32_t sum = 0;
  for (size_t i = kTcpAt; i < frame.size(); ++i) {
    sum += std::to_integer<uint32_t>(frame[i]) << ((i - kTcpAt) % 2 == 0 ? 8 : 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

TEST(FlipCarriedByte, ChangesOneByteOfTheDataAndKeepsTheChecksumRight) {
  Rng rng(1);
  for (size_t data_bytes : {1, 2, 3, 700, 1459, 1460}) {
    std::vector<std::byte> frame = Frame(data_bytes);
    const uint32_t checksum = Checksum(frame);
    frame[kChecksumAt] = static_cast<std::byte>(checksum >> 8);
    frame[kChecksumAt + 1] = static_cast<std::byte>(checksum & 0xff);
    ASSERT_EQ(Checksum(frame), 0u);
    for (int i = 0; i < 100; ++i) {
      const std::vector<std::byte> before = frame;
      ASSERT_TRUE(FlipCarriedByte(frame, rng));
      EXPECT_EQ(Checksum(frame), 0u);
      size_t changed = 0;
      for (size_t at = 0; at < frame.size(); ++at) {
        if (at / 2 == kChecksumAt / 2 || frame[at] == before[at]) continue;
        ++changed;
        EXPECT_GE(at, kDataAt);
      }
      EXPECT_EQ(changed, 1u);
    }
  }
}

TEST(FlipCarriedByte, LeavesFramesWithoutDataAlone) {
  Rng rng(1);
  std::vector<std::byte> acknowledgement = Frame(0), other = Frame(100), tiny(20);
  other[12] = std::byte{0x86};
  for (std::vector<std::byte>* frame : {&acknowledgement, &other, &tiny}) {
    const std::vector<std::byte> before = *frame;
    EXPECT_FALSE(FlipCarriedByte(*frame, rng));
    EXPECT_EQ(*frame, before);
  }
}

}  // namespace
}  // namespace engram::chaos
