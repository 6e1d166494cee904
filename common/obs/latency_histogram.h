// Log-bucket latency histogram: 64 buckets per power of two (relative error < 1.6 %), fixed memory,
// merged by adding counts, never by averaging percentiles. One owner per object; merge across
// threads at the end.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace engram::obs {

class LatencyHistogram {
 public:
  void Record(uint64_t value_ns) {
    ++counts_[BucketOf(value_ns)];
    ++total_;
    if (value_ns > max_ns_) max_ns_ = value_ns;
  }

  void Merge(const LatencyHistogram& other) {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    total_ += other.total_;
    if (other.max_ns_ > max_ns_) max_ns_ = other.max_ns_;
  }

  uint64_t total() const { return total_; }
  uint64_t max_ns() const { return max_ns_; }

  // Upper edge of the bucket that holds the quantile, at most max; 0 when empty. q in [0, 1].
  uint64_t QuantileNs(double q) const {
    if (total_ == 0) return 0;
    auto rank = static_cast<uint64_t>(q * static_cast<double>(total_ - 1));
    for (size_t i = 0; i < counts_.size(); ++i) {
      if (rank < counts_[i]) return UpperEdge(i) < max_ns_ ? UpperEdge(i) : max_ns_;
      rank -= counts_[i];
    }
    return max_ns_;
  }

 private:
  static constexpr int kSubBits = 6;
  static constexpr uint64_t kSubBuckets = uint64_t{1} << kSubBits;

  // Values below 64 have a bucket each; above, the 6 bits after the leading one choose the bucket.
  static size_t BucketOf(uint64_t v) {
    if (v < kSubBuckets) return v;
    const int shift = 63 - std::countl_zero(v) - kSubBits;
    return ((static_cast<uint64_t>(shift) + 1) << kSubBits) + ((v >> shift) & (kSubBuckets - 1));
  }
  static uint64_t UpperEdge(size_t bucket) {
    if (bucket < kSubBuckets) return bucket;
    const uint64_t shift = (bucket >> kSubBits) - 1;
    const uint64_t mantissa = kSubBuckets + (bucket & (kSubBuckets - 1));
    return ((mantissa + 1) << shift) - 1;
  }

  std::array<uint64_t, (64 - kSubBits + 1) * kSubBuckets> counts_{};
  uint64_t total_ = 0;
  uint64_t max_ns_ = 0;
};

}  // namespace engram::obs
