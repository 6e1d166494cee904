// Hyper-connections of one token: the doubly stochastic mix, collapse to one stream, expansion to
// all.
#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "kernels/ops.h"

namespace engram::kernels {

void SinkhornExp(std::span<float> m, int64_t streams, int rounds) {
  const auto n = static_cast<size_t>(streams);
  CHECK_EQ(m.size(), n * n);
  for (size_t r = 0; r < n; ++r) {
    // Dividing a row by a constant does not change what the first row pass makes of it, and exp
    // cannot overflow.
    const float largest = *std::max_element(m.begin() + static_cast<ptrdiff_t>(r * n),
                                            m.begin() + static_cast<ptrdiff_t>((r + 1) * n));
    for (size_t c = 0; c < n; ++c) m[r * n + c] = std::exp(m[r * n + c] - largest);
  }
  for (int round = 0; round < rounds; ++round) {
    for (size_t r = 0; r < n; ++r) {
      float sum = 0;
      for (size_t c = 0; c < n; ++c) sum += m[r * n + c];
      for (size_t c = 0; c < n; ++c) m[r * n + c] /= sum;
    }
    for (size_t c = 0; c < n; ++c) {
      float sum = 0;
      for (size_t r = 0; r < n; ++r) sum += m[r * n + c];
      for (size_t r = 0; r < n; ++r) m[r * n + c] /= sum;
    }
  }
}

void HyperCollapse(const HyperMix& mix, std::span<const float> streams, std::span<float> u) {
  CHECK_EQ(streams.size(), mix.pre.size() * u.size());
  std::fill(u.begin(), u.end(), 0.0f);
  for (size_t g = 0; g < mix.pre.size(); ++g)
    AddScaled(u, mix.pre[g], streams.subspan(g * u.size(), u.size()));
}

void HyperExpand(const HyperMix& mix, std::span<const float> y, std::span<float> streams) {
  const size_t n = mix.post.size();
  CHECK_EQ(streams.size(), n * y.size());
  const std::vector<float> before(streams.begin(), streams.end());
  for (size_t g = 0; g < n; ++g) {
    const std::span<float> stream = streams.subspan(g * y.size(), y.size());
    for (size_t i = 0; i < y.size(); ++i) stream[i] = mix.post[g] * y[i];
    for (size_t j = 0; j < n; ++j) {
      AddScaled(stream, mix.residual[g * n + j], {before.data() + j * y.size(), y.size()});
    }
  }
}

}  // namespace engram::kernels
