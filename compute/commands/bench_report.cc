#include "compute/commands/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace engram::compute {
namespace {

double PerSecond(int64_t count, int64_t ns) {
  return ns > 0 ? static_cast<double>(count) * 1e9 / static_cast<double>(ns) : 0;
}

double Milliseconds(int64_t ns) { return static_cast<double>(ns) * 1e-6; }

std::string PercentileText(const std::vector<double>& values) {
  return fmt::format("p50 {:.2f}  p90 {:.2f}  p99 {:.2f} ms", Percentile(values, 0.5),
                     Percentile(values, 0.9), Percentile(values, 0.99));
}

json::object PercentileJson(const std::vector<double>& values) {
  return {{"p50", Percentile(values, 0.5)},
          {"p90", Percentile(values, 0.9)},
          {"p99", Percentile(values, 0.99)}};
}

}  // namespace

double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
}

LoadFigures FiguresOf(const LoadResult& result) {
  LoadFigures figures;
  int64_t tokens = 0;
  for (const RequestRecord& record : result.requests) {
    if (!record.status.ok() || record.token_ns.empty()) {
      ++figures.refused;
      continue;
    }
    ++figures.completed;
    tokens += static_cast<int64_t>(record.token_ns.size());
    figures.first_token_ms.push_back(Milliseconds(record.token_ns.front() - record.due_ns));
    figures.request_ms.push_back(Milliseconds(record.token_ns.back() - record.due_ns));
    for (size_t i = 1; i < record.token_ns.size(); ++i) {
      figures.inter_token_ms.push_back(Milliseconds(record.token_ns[i] - record.token_ns[i - 1]));
    }
  }
  const EngineSnapshot& a = result.before;
  const EngineSnapshot& b = result.after;
  figures.requests_per_s = static_cast<double>(figures.completed) / result.seconds;
  figures.output_tokens_per_s = static_cast<double>(tokens) / result.seconds;
  figures.prefill_tokens_per_s =
      PerSecond(b.prefill_tokens - a.prefill_tokens, b.prefill_ns - a.prefill_ns);
  figures.decode_tokens_per_s =
      PerSecond(b.decode_tokens - a.decode_tokens, b.decode_ns - a.decode_ns);
  const int64_t step_ns = b.step_ns - a.step_ns;
  figures.exposed_share = step_ns > 0 ? static_cast<double>(b.exposed_wait_ns - a.exposed_wait_ns) /
                                            static_cast<double>(step_ns)
                                      : 0;
  return figures;
}

std::string FiguresText(const LoadFigures& f) {
  return fmt::format(
      "  {} requests done, {} refused or failed; {:.2f} requests/s, {:.1f} tokens/s generated\n"
      "  first token   {}\n"
      "  between       {}\n"
      "  whole request {}\n"
      "  steps with prompts {:.1f} prompt tokens/s, without {:.1f} tokens/s; exposed wait {:.4f} % "
      "of step time\n",
      f.completed, f.refused, f.requests_per_s, f.output_tokens_per_s,
      PercentileText(f.first_token_ms), PercentileText(f.inter_token_ms),
      PercentileText(f.request_ms), f.prefill_tokens_per_s, f.decode_tokens_per_s,
      100 * f.exposed_share);
}

json::object FiguresJson(const LoadFigures& f) {
  return {{"completed", f.completed},
          {"refused", f.refused},
          {"requests_per_s", f.requests_per_s},
          {"output_tokens_per_s", f.output_tokens_per_s},
          {"prefill_tokens_per_s", f.prefill_tokens_per_s},
          {"decode_tokens_per_s", f.decode_tokens_per_s},
          {"exposed_share", f.exposed_share},
          {"first_token_ms", PercentileJson(f.first_token_ms)},
          {"inter_token_ms", PercentileJson(f.inter_token_ms)},
          {"request_ms", PercentileJson(f.request_ms)}};
}

Status CheckBelow(const DecodeBound& bound, double tokens_per_s) {
  const double share = bound.Share(tokens_per_s);
  if (share <= kShareMax) return OkStatus();
  const double bytes = bound.weight_bytes + bound.cache_bytes;
  const std::string wrong =
      bytes <= bound.processor_cache_bytes
          ? fmt::format(
                "the ceiling is wrong: the processor's own cache of {:.0f} MB holds what a "
                "token reads",
                bound.processor_cache_bytes * 1e-6)
          : std::string("the figure is wrong: a token cannot read the bytes counted for it");
  return FailedPrecondition(
      fmt::format("decode of {:.1f} MB a token at {:.1f} tokens/s is {:.2f} of {:.1f} GB/s that "
                  "memory gives; {}",
                  bytes * 1e-6, tokens_per_s, share, bound.stream_gb_per_s, wrong));
}

double PromptFlops(double weight_bytes, const ModelConfig& model, double mean_positions) {
  const kernels::MlaShape& a = model.attention;
  const auto of_a_position =
      static_cast<double>(model.layer_count * a.heads * (2 * a.latent + a.rope));
  return weight_bytes + 2 * of_a_position * mean_positions;  // 2 bytes and 2 operations a weight
}

bool SameTokens(const LoadResult& a, const LoadResult& b) {
  return std::equal(a.requests.begin(), a.requests.end(), b.requests.begin(), b.requests.end(),
                    [](const RequestRecord& x, const RequestRecord& y) {
                      return x.tokens == y.tokens && x.status.ok() && y.status.ok();
                    });
}

}  // namespace engram::compute
