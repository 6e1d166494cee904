// Figures of a load, and of two loads compared round by round.
#pragma once

#include <string>
#include <vector>

#include "common/base/spread.h"
#include "common/io/json.h"
#include "compute/commands/bench_load.h"
#include "compute/model/model_config.h"

namespace engram::compute {

// `share` in 0..1 of sorted or unsorted values, by the nearest rank; 0 of none.
double Percentile(std::vector<double> values, double share);

struct LoadFigures {
  int64_t completed = 0;
  int64_t refused = 0;  // and failed
  double requests_per_s = 0;
  double prefill_tokens_per_s = 0;  // of the steps that had a chunk
  double decode_tokens_per_s = 0;   // of the steps that had none
  double output_tokens_per_s = 0;   // generated, of the whole time
  double exposed_share = 0;         // of step time spent waiting for rows
  std::vector<double> first_token_ms, inter_token_ms, request_ms;  // from when each was due
};
LoadFigures FiguresOf(const LoadResult& result);
json::object FiguresJson(const LoadFigures& figures);
std::string FiguresText(const LoadFigures& figures);

// What bounds decode at one request: a token reads the weights and the cache of the positions
// before it, as fast as memory gives them.
struct DecodeBound {
  double weight_bytes = 0;
  double cache_bytes = 0;  // at the mean position
  double stream_gb_per_s = 0;
  double processor_cache_bytes = 0;  // the largest, from which weights come faster; 0: not known

  double Share(double tokens_per_s) const {
    return tokens_per_s * (weight_bytes + cache_bytes) * 1e-9 / stream_gb_per_s;
  }
};
// FAILED_PRECONDITION when the share of a ceiling exceeds 1.05: which of both is wrong.
inline constexpr double kShareMax = 1.05;
Status CheckBelow(const DecodeBound& bound, double tokens_per_s);

// What one prompt token multiplies, in floating point operations: the weights' products, and
// attention over `mean_positions` cached ones.
double PromptFlops(double weight_bytes, const ModelConfig& model, double mean_positions);

// Whether both loads' answers are the same tokens.
bool SameTokens(const LoadResult& a, const LoadResult& b);

}  // namespace engram::compute
