#include "tests/bench/kernels/small_ops.h"

#include <memory>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "kernels/ops.h"

namespace engram::bench {
namespace {

using namespace kernels;  // NOLINT: the operations by their names

constexpr int64_t kTokens = 256, kWidth = 2048, kStreams = 4, kVocab = 129'280;

struct Values {
  std::vector<float> x, y, weight, streams, keys, stream_weight, history, logits, mixes;
  std::vector<float> conv;
  Workspace memory;
  Values() {
    Rng rng(1);
    const auto fill = [&](std::vector<float>& values, int64_t count) {
      values.resize(static_cast<size_t>(count));
      for (float& value : values) value = static_cast<float>(rng.NextDouble() - 0.5);
    };
    fill(x, kTokens * kWidth);
    fill(y, kTokens * kWidth);
    fill(weight, kWidth);
    fill(streams, kTokens * kStreams * kWidth);
    fill(keys, kTokens * (kStreams + 1) * kWidth);
    fill(stream_weight, kStreams * kWidth);
    fill(history, 9 * kStreams * kWidth);
    fill(conv, 4 * kStreams * kWidth);
    fill(logits, kVocab);
    fill(mixes, kStreams * (kStreams + 2));
  }
  HyperMix mix() {
    return {std::span(mixes).first(kStreams), std::span(mixes).subspan(kStreams, kStreams),
            std::span(mixes).subspan(2 * kStreams)};
  }
  std::span<float> token(std::vector<float>& of, int64_t t, int64_t width) {
    return std::span(of).subspan(static_cast<size_t>(t * width), static_cast<size_t>(width));
  }
};

// Runs `work`, which touches `bytes`, until the round is over.
Leg BytesLeg(const char* name, double bytes, std::function<void()> work) {
  return {name, [bytes, work = std::move(work)](double seconds, bool) -> Result<Round> {
            Round round;
            double sum = 0;
            const TimePoint start = Clock::Real().Now();
            do {
              work();
              sum += bytes;
              round.seconds =
                  static_cast<double>(Nanos(Clock::Real().Now() - start).count()) * 1e-9;
            } while (round.seconds < seconds);
            round.rows = static_cast<uint64_t>(sum);
            return round;
          }};
}

}  // namespace

std::vector<Leg> SmallOpLegs() {
  auto v = std::make_shared<Values>();
  constexpr double kOne = 4.0 * kTokens * kWidth;  // bytes of [tokens, width]
  std::vector<Leg> legs;
  const auto add = [&](const char* name, double bytes, std::function<void()> work) {
    legs.push_back(BytesLeg(name, bytes, std::move(work)));
  };
  add("RmsNorm", 2 * kOne, [v] { RmsNorm(v->x, v->weight, 1e-6f, v->y); });
  add("SwiGlu", 3 * kOne, [v] {  // of fresh gates: its own results shrink to denormals
    for (int64_t t = 0; t < kTokens; ++t) {
      const std::span<float> gate = v->token(v->y, 0, kWidth);
      std::ranges::copy(v->token(v->x, t, kWidth), gate.begin());
      SwiGlu(gate, v->token(v->x, t, kWidth));
    }
  });
  add("Add", 3 * kOne, [v] { Add(v->y, v->x); });
  add("Softmax", 2 * kOne, [v] {
    for (int64_t t = 0; t < kTokens; ++t) Softmax(v->token(v->y, t, kWidth), 1e-3f);
  });
  std::vector<float> rotation(64);
  RopeRotation(1234, RopeFrequencies(64, 1e4, nullptr), 1, rotation);
  add("Rope", 2 * kOne, [v, rotation] {
    for (int64_t i = 0; i < kTokens * kWidth / 64; ++i) Rope(v->token(v->y, i, 64), rotation);
  });
  add("RouteToken, 256 experts", kTokens * 4.0 * 256, [v] {
    const RouteRule rule{256, 8, 8, 4, true, 2.5f};
    std::vector<int32_t> chosen(8);
    std::vector<float> scales(8), scratch(512);
    for (int64_t t = 0; t < kTokens; ++t) {
      RouteToken(rule, v->token(v->x, t, 256), v->token(v->x, t + 1, 256), chosen, scales, scratch);
    }
  });
  add("SinkhornExp, 20 rounds", kTokens * 2.0 * 64, [v] {
    std::vector<float> m(16);
    for (int64_t t = 0; t < kTokens; ++t) {
      std::copy_n(v->x.data() + t * 16, 16, m.data());
      SinkhornExp(m, kStreams, 20);
    }
  });
  add("HyperCollapse", (kStreams + 1) * kOne, [v] {
    for (int64_t t = 0; t < kTokens; ++t) {
      HyperCollapse(v->mix(), v->token(v->streams, t, kStreams * kWidth),
                    v->token(v->y, t, kWidth));
    }
  });
  add("HyperExpand", (2 * kStreams + 1) * kOne, [v] {
    for (int64_t t = 0; t < kTokens; ++t) {
      HyperExpand(v->mix(), v->token(v->x, t, kWidth), v->token(v->streams, t, kStreams * kWidth));
    }
    for (float& value : v->mixes) value *= 0.99f;  // the streams stay finite
  });
  add("FusePaper (gate, short conv)", (3 * kStreams + 1) * kOne, [v] {
    const PaperFusion fusion{
        v->stream_weight, v->stream_weight, v->stream_weight, v->conv, kStreams, 4, 3};
    FusePaper(v->memory, fusion, std::span(v->keys).first(v->streams.size()), v->x, {}, v->history,
              v->streams);
  });
  add("FuseV41 (gate)", (3 * kStreams + 1) * kOne,
      [v] { FuseV41(v->keys, v->stream_weight, kStreams, 1e-6f, {}, v->streams); });
  add("QuantizeActivations", 2 * kOne, [v] { QuantizeActivations(v->y); });
  add("AllFinite, 129,280", 4.0 * kVocab, [v] { v->y[0] = AllFinite(v->logits) ? 1 : 0; });
  add("LogProbability, 129,280", 4.0 * kVocab,
      [v] { v->y[0] = static_cast<float>(LogProbability(v->logits, 5)); });
  add("ArgMax, 129,280", 4.0 * kVocab, [v] { v->y[0] = static_cast<float>(ArgMax(v->logits)); });
  return legs;
}

}  // namespace engram::bench
