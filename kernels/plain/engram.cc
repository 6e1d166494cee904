// Fusion of Engram rows into the residual streams, both variants, after the projections.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "common/base/check.h"
#include "kernels/exp.h"
#include "kernels/ops.h"
#include "kernels/reduce.h"

namespace engram::kernels {
namespace {

// sigmoid(sign(s) sqrt(max(|s|, 1e-6))), sign(0) = 0.
float PaperGate(float s) {
  const float root = std::sqrt(std::max(std::fabs(s), 1e-6f));
  return Sigmoid(s > 0 ? root : s < 0 ? -root : 0.0f);
}

// The same, but with copysign: a dot product of +0 opens the gate by sigmoid(1e-3).
float V41Gate(float dot) {
  return Sigmoid(std::copysign(std::sqrt(std::max(std::fabs(dot), 1e-6f)), dot));
}

// ToFloat(ToFp8E4m3(x)) of |x| <= 448, without branches: three bits of mantissa, or steps of 2^-9
// below 2^-6.
inline float RoundToFp8(float x) {
  constexpr float kSteps = 24576.0f;  // 1.5 * 2^23 * 2^-9: adding it rounds to steps
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t even = bits + 0x7ffffu + ((bits >> 20) & 1u);
  const float normal = std::bit_cast<float>(even & 0xfff00000u);
  const float subnormal = std::copysign(std::fabs(x) + kSteps - kSteps, x);
  return std::fabs(x) < 0.015625f ? subnormal : normal;
}

bool IsLive(std::span<const uint8_t> live, int64_t t) { return live.empty() || live[t] != 0; }

// <RMSNorm(key), RMSNorm(h)> / sqrt(D): the three sums in one pass, sixteen lanes each.
float NormedDot(std::span<const float> key, std::span<const float> key_weight,
                std::span<const float> h, std::span<const float> h_weight) {
  std::array<float, kLanes> keys{}, hs{}, both{};
  const auto add = [&](int64_t i, int64_t l) {
    keys[l] = std::fma(key[i], key[i], keys[l]);
    hs[l] = std::fma(h[i], h[i], hs[l]);
    both[l] = std::fma(key[i] * key_weight[i], h[i] * h_weight[i], both[l]);
  };
  int64_t i = 0;
  for (; i + kLanes <= std::ssize(key); i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) add(i + l, l);
  }
  for (int64_t l = 0; i + l < std::ssize(key); ++l) add(i + l, l);
  const auto width = static_cast<float>(key.size());
  const float key_scale = 1.0f / std::sqrt(FoldLanes(keys) / width + kPaperNormEps);
  const float h_scale = 1.0f / std::sqrt(FoldLanes(hs) / width + kPaperNormEps);
  return FoldLanes(both) * key_scale * h_scale / std::sqrt(width);
}

// One position: h += u + SiLU(conv), `taps` [kernel] the positions it looks at, oldest first.
template <int64_t kKernel>
void AddConvolvedRow(std::span<const float> conv, const std::array<const float*, kKernel>& taps,
                     const float* u, float* h) {
  for (int64_t c = 0; c < std::ssize(conv) / kKernel; ++c) {
    float sum = 0;
    for (int64_t tap = 0; tap < kKernel; ++tap) {
      sum = std::fma(conv[c * kKernel + tap], taps[tap][c], sum);
    }
    h[c] += u[c] + sum * Sigmoid(sum);
  }
}

// h_t += u_t + SiLU(conv) where `normed` [history + T, channels] holds the normed u, oldest first.
void AddConvolved(const PaperFusion& f, std::span<const float> normed, std::span<const float> u,
                  std::span<float> h) {
  const int64_t channels = std::ssize(f.conv_norm);
  for (int64_t t = 0; t < std::ssize(u) / channels; ++t) {
    const auto tap_at = [&](int64_t tap) {
      return normed.data() + (t + tap * f.dilation) * channels;
    };
    const float* const from = u.data() + t * channels;
    float* const to = h.data() + t * channels;
    if (f.kernel == 4) {  // the models' own: unrolled, it is vectorised
      AddConvolvedRow<4>(f.conv, {tap_at(0), tap_at(1), tap_at(2), tap_at(3)}, from, to);
      continue;
    }
    for (int64_t c = 0; c < channels; ++c) {
      float sum = 0;
      for (int64_t tap = 0; tap < f.kernel; ++tap) {
        sum = std::fma(f.conv[c * f.kernel + tap], tap_at(tap)[c], sum);
      }
      to[c] += from[c] + sum * Sigmoid(sum);
    }
  }
}

}  // namespace

void FusePaper(Workspace& memory, const PaperFusion& f, std::span<const float> keys,
               std::span<const float> value, std::span<const uint8_t> live,
               std::span<float> history, std::span<float> h) {
  const int64_t channels = std::ssize(f.conv_norm);
  const int64_t width = channels / f.streams;
  const int64_t tokens = std::ssize(h) / channels;
  CHECK(keys.size() == h.size() && std::ssize(value) == tokens * width);
  CHECK_EQ(std::ssize(history), f.history_size());
  const Workspace::Scope scope(memory);
  const std::span<float> u = memory.Take<float>(std::ssize(h));
  const std::span<float> normed = memory.Take<float>(std::ssize(history) + std::ssize(h));
  std::copy(history.begin(), history.end(), normed.begin());
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t first = 0; first < channels; first += width) {
      const int64_t at = t * channels + first;
      const float gate =
          IsLive(live, t)
              ? PaperGate(NormedDot(keys.subspan(at, width), f.key_norm.subspan(first, width),
                                    h.subspan(at, width), f.query_norm.subspan(first, width)))
              : 0.0f;
      for (int64_t i = 0; i < width; ++i) u[at + i] = gate * value[t * width + i];
      RmsNorm(u.subspan(at, width), f.conv_norm.subspan(first, width), kPaperConvNormEps,
              normed.subspan(std::ssize(history) + at, width));
    }
  }
  AddConvolved(f, normed, u, h);
  std::copy(normed.end() - std::ssize(history), normed.end(), history.begin());
}

void FuseV41(std::span<const float> kv, std::span<const float> qk_weight, int64_t streams,
             float norm_eps, std::span<const uint8_t> live, std::span<float> h) {
  const int64_t channels = std::ssize(qk_weight);
  const int64_t width = channels / streams;
  const int64_t tokens = std::ssize(h) / channels;
  CHECK_EQ(std::ssize(kv), tokens * (channels + width));
  const auto d = static_cast<float>(width);
  const auto norm_of = [&](const float* x) {
    return 1.0f / std::sqrt(Dot(x, x, width) / d + norm_eps);
  };
  for (int64_t t = 0; t < tokens; ++t) {
    if (!IsLive(live, t)) continue;
    const float* const value = kv.data() + t * (channels + width) + channels;
    for (int64_t first = 0; first < channels; first += width) {
      const float* const key = kv.data() + t * (channels + width) + first;
      const float* const weight = qk_weight.data() + first;
      const std::span<float> stream = h.subspan(t * channels + first, width);
      const float dot = SumLanes(width, [&](int64_t i, float sum) {
        return std::fma(stream[i] * weight[i], key[i], sum);
      });
      AddScaled(stream, V41Gate(dot * norm_of(stream.data()) * norm_of(key) / std::sqrt(d)),
                std::span(value, width));
    }
  }
}

void QuantizeActivations(std::span<float> x) {
  CHECK_EQ(x.size() % 32, 0u);
  for (size_t first = 0; first < x.size(); first += 32) {
    const std::span<float> block = x.subspan(first, 32);
    float amax = 0;
    for (const float value : block) amax = std::max(amax, std::fabs(value));
    if (amax == 0 || !std::isfinite(amax)) continue;  // a non-finite value is caught at the logits
    int exponent = 0;
    const float fraction = std::frexp(amax / kFp8E4m3Max, &exponent);
    if (fraction == 0.5f) --exponent;  // already a power of two
    if (exponent < -100 || exponent > 100) {
      for (float& value : block) {
        value = std::ldexp(ToFloat(ToFp8E4m3(std::ldexp(value, -exponent))), exponent);
      }
      continue;
    }
    const float down = std::ldexp(1.0f, -exponent), up = std::ldexp(1.0f, exponent);
    for (float& value : block) value = RoundToFp8(value * down) * up;
  }
}

bool DequantizeBlocks(std::span<const std::byte> fp8, std::span<const std::byte> scales,
                      int64_t rows, int64_t columns, std::span<Bf16> out) {
  const int64_t scale_columns = (columns + 31) / 32;
  CHECK_EQ(std::ssize(fp8), rows * columns);
  CHECK_EQ(std::ssize(scales), (rows + 31) / 32 * scale_columns);
  CHECK_EQ(out.size(), fp8.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t at = r * columns + c;
      const std::byte scale = scales[r / 32 * scale_columns + c / 32];
      const float value = ToFloat(Fp8E4m3{std::to_integer<uint8_t>(fp8[at])}) *
                          ToFloat(E8m0{std::to_integer<uint8_t>(scale)});
      out[at] = ToBf16(value);
      if (!std::isfinite(value) || ToFloat(out[at]) != value) return false;
    }
  }
  return true;
}

}  // namespace engram::kernels
