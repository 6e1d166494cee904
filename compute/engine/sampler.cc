#include "compute/engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/base/rng.h"
#include "kernels/exp.h"
#include "kernels/ops.h"

namespace engram::compute {
namespace {

template <typename T>
Status InRange(const char* field, T value, double min, double max, const char* range) {
  const auto number = static_cast<double>(value);
  if (number >= min && number <= max) return OkStatus();  // false for NaN
  return InvalidArgument(fmt::format("{} is {}; it must be {}", field, value, range));
}

// Likelier first, ties to the lower id.
struct Likelier {
  std::span<const float> logits;
  bool operator()(int32_t a, int32_t b) const {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  }
};

// exp((logit - largest) / temperature), what a probability is before it is divided by the sum;
// `largest` is that of these logits.
struct Weight {
  std::span<const float> logits;
  double largest;
  double temperature;
  double operator()(int32_t id) const {
    return kernels::ExpNonPositive(
        (static_cast<double>(logits[static_cast<size_t>(id)]) - largest) / temperature);
  }
};

void Penalize(const SamplingOptions& options, const TokenCounts& generated,
              std::vector<float>& logits) {
  for (const auto& [id, bias] : options.logit_bias) logits[static_cast<size_t>(id)] += bias;
  for (const auto& [id, count] : generated) {
    logits[static_cast<size_t>(id)] -= static_cast<float>(
        options.presence_penalty + options.frequency_penalty * static_cast<double>(count));
  }
}

// The `count` likeliest of `ids`, likeliest first.
void KeepLikeliest(const Likelier& likelier, size_t count, std::vector<int32_t>& ids) {
  count = std::min(count, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count), ids.end(), likelier);
  ids.resize(count);
}

// The likeliest ids whose probabilities reach top_p, sorting no more of them than that takes.
void CutTopP(const Likelier& likelier, const Weight& weight, double top_p,
             std::vector<int32_t>& ids) {
  double sum = 0;
  std::sort(ids.begin(), ids.end());  // one order of summation
  for (const int32_t id : ids) sum += weight(id);
  for (size_t sorted = 64;; sorted *= 8) {
    std::vector<int32_t> head = ids;
    KeepLikeliest(likelier, sorted, head);
    double reached = 0;
    size_t kept = 0;
    while (kept < head.size() && reached < top_p * sum) reached += weight(head[kept++]);
    if (reached < top_p * sum && head.size() < ids.size()) continue;
    head.resize(kept);
    ids = std::move(head);
    return;
  }
}

bool HasCuts(const SamplingOptions& options) {
  return options.top_k > 0 || options.top_p < 1 || options.min_p > 0;
}

// The ids that the cuts leave, ascending.
std::vector<int32_t> Candidates(std::span<const float> logits, const SamplingOptions& options,
                                const Weight& weight) {
  const Likelier likelier{logits};
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  if (!HasCuts(options)) return ids;  // ascending as they are
  if (options.top_k > 0) KeepLikeliest(likelier, static_cast<size_t>(options.top_k), ids);
  if (options.top_p < 1) CutTopP(likelier, weight, options.top_p, ids);
  if (options.min_p > 0) {
    std::erase_if(ids, [&](int32_t id) { return weight(id) < options.min_p; });
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

int32_t Draw(std::span<const float> logits, const SamplingOptions& options, int32_t best,
             int64_t n) {
  const Weight weight{logits, static_cast<double>(logits[static_cast<size_t>(best)]),
                      options.temperature};
  const std::vector<int32_t> ids = Candidates(logits, options, weight);
  std::vector<double> cumulative(ids.size());
  double sum = 0;
  for (size_t i = 0; i < ids.size(); ++i) cumulative[i] = sum += weight(ids[i]);
  Rng rng(Mix64(options.seed, static_cast<uint64_t>(n)));
  const double target = rng.NextDouble() * sum;  // < sum
  const auto drawn = std::upper_bound(cumulative.begin(), cumulative.end(), target);
  return drawn == cumulative.end() ? best : ids[static_cast<size_t>(drawn - cumulative.begin())];
}

}  // namespace

Status SamplingOptions::Check(int64_t vocab_size) const {
  RETURN_IF_ERROR(InRange("temperature", temperature, 0, 1000, "0..1000"));
  RETURN_IF_ERROR(InRange("top_k", top_k, 0, HUGE_VAL, "0 (all) or more"));
  if (!(top_p > 0)) return InvalidArgument(fmt::format("top_p is {}; it must be (0, 1]", top_p));
  RETURN_IF_ERROR(InRange("top_p", top_p, 0, 1, "(0, 1]"));
  RETURN_IF_ERROR(InRange("min_p", min_p, 0, 1, "0..1"));
  RETURN_IF_ERROR(InRange("presence_penalty", presence_penalty, -2, 2, "-2..2"));
  RETURN_IF_ERROR(InRange("frequency_penalty", frequency_penalty, -2, 2, "-2..2"));
  RETURN_IF_ERROR(InRange("top_logprobs", top_logprobs, 0, kTopMax, "0..20"));
  for (const auto& [id, bias] : logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return InvalidArgument(
          fmt::format("logit_bias names token {}, outside the vocabulary of {}", id, vocab_size));
    }
    RETURN_IF_ERROR(InRange("a value of logit_bias", bias, -100, 100, "-100..100"));
  }
  return OkStatus();
}

int32_t ChooseToken(std::span<const float> logits, const SamplingOptions& options,
                    const TokenCounts& generated, int64_t n) {
  std::vector<float> adjusted;
  const bool penalized = options.presence_penalty != 0 || options.frequency_penalty != 0;
  if (!options.logit_bias.empty() || penalized) {
    adjusted.assign(logits.begin(), logits.end());
    Penalize(options, penalized ? generated : TokenCounts(), adjusted);
    logits = adjusted;
  }
  const auto best = static_cast<int32_t>(kernels::ArgMax(logits));
  return options.temperature == 0 ? best : Draw(logits, options, best, n);
}

SampledToken ReportToken(std::span<const float> logits, int32_t token, int top) {
  const float largest = logits[static_cast<size_t>(kernels::ArgMax(logits))];
  const double log_sum = std::log(kernels::SumOfExp(logits, largest));
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - largest -
                              log_sum);
  };
  SampledToken report{token, logprob(token), {}};
  if (top == 0) return report;
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  KeepLikeliest({logits}, static_cast<size_t>(top), ids);
  for (const int32_t id : ids) report.top.push_back({id, logprob(id)});
  return report;
}

std::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAbort:
      return "abort";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

}  // namespace engram::compute
