// The key of a row in a keyed store: 8 printable bytes (memcached's text protocol takes no others),
// in order of layer, then row, so that RocksDB can be filled in order.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

namespace engram::bench {

inline constexpr size_t kKeyBytes = 8;
inline constexpr int kKeyRowBits = 40;

class KeyEncoder {
 public:
  constexpr KeyEncoder() {
    constexpr char kDigits[] = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
    for (size_t i = 0; i < pairs_.size(); ++i) pairs_[i] = {kDigits[i >> 6], kDigits[i & 63]};
  }

  // row < 2^40, layer < 2^8.
  void Write(uint64_t layer, uint64_t row, char* out) const {
    const uint64_t value = layer << kKeyRowBits | row;
    for (int i = 0; i < 4; ++i) {
      std::memcpy(out + 2 * i, pairs_[(value >> (36 - 12 * i)) & 4095].data(), 2);
    }
  }

 private:
  std::array<std::array<char, 2>, 4096> pairs_ = {};  // 12 bits at a time
};

inline constexpr KeyEncoder kKeys;

}  // namespace engram::bench
