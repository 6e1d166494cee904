// What the engine is asked and what it answers: the seam between its callers (HTTP, a command line)
// and the code that computes. Tokens in, tokens out; text, stop strings and chat templates are the
// caller's.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/row_source.h"
#include "common/obs/buckets.h"
#include "compute/memory/prefetcher.h"
#include "compute/model/expert_load.h"

namespace engram::compute {

// Applied in this order: logit_bias and penalties on the logits, temperature, then the cuts top_k,
// top_p, min_p, then one seeded draw. Ranges are checked by Check.
struct SamplingOptions {
  double temperature = 1;        // >= 0; 0: the largest logit, ties to the lower id
  int64_t top_k = 0;             // keep the k likeliest; 0: all
  double top_p = 1;              // (0, 1]: keep the likeliest whose probabilities reach p
  double min_p = 0;              // [0, 1]: drop what is below min_p times the likeliest
  double presence_penalty = 0;   // [-2, 2], once for each token generated before
  double frequency_penalty = 0;  // [-2, 2], for each time a token was generated before
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // (id, [-100, 100])
  uint64_t seed = 0;  // the n-th draw is a function of (seed, n): not of batch or preemption
  // Log-probabilities reported beside the chosen one: the likeliest few, 0..kTopMax.
  int top_logprobs = 0;
  static constexpr int kTopMax = 20;
  // INVALID_ARGUMENT names the field, its value and its range.
  Status Check(int64_t vocab_size) const;
};

struct CompletionRequest {
  std::vector<int32_t> prompt;  // at least one
  int64_t tokens_max = 16;      // >= 1, or 0 with score_prompt: only score
  bool ignore_eos = false;
  std::vector<int32_t> stop_ids = {};  // end it like an end-of-text token, also with ignore_eos
  bool score_prompt = false;           // log P(prompt[i] | before), i >= 1, come with the finish
  SamplingOptions sampling;
  TimePoint deadline = TimePoint::max();  // of the whole request, on the monotonic clock
  // Whether the engine still makes tokens: goes before the queue, also when it is full. The caller
  // has few of them under way.
  bool is_probe = false;
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;  // natural log, of the model's distribution (before temperature and cuts)
};

struct SampledToken {
  int32_t token = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;  // sampling.top_logprobs of them, likeliest first
};

enum class FinishReason : uint8_t {
  kStop,    // an end-of-text token or one of stop_ids, which is the last one delivered
  kLength,  // tokens_max, or the model's last position
  kAbort,   // cancelled, or cut off by a shutdown
  kError,   // see Finish::status
};
std::string_view FinishReasonName(FinishReason reason);  // "stop" | "length" | "abort" | "error"

struct Finish {
  FinishReason reason = FinishReason::kStop;
  Status status;  // why, for kError: UNAVAILABLE or DATA_LOSS of rows, DEADLINE_EXCEEDED, ...
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;      // of the prompt, taken from the prefix cache
  int64_t completion_tokens = 0;  // delivered, an end-of-text token included
  // Positions computed, at least once, with a closed gate: their rows did not come (degrade).
  int64_t degraded_positions = 0;
  std::vector<float> prompt_logprobs;  // with score_prompt: prompt.size() - 1
  // Until the engine began with it, from then until its first token, and from there to the end;
  // zero for what it did not come to.
  Nanos queue_time = Nanos::zero();
  Nanos prefill_time = Nanos::zero();
  Nanos decode_time = Nanos::zero();
};

// What happened since the last update: tokens, or the end (both in the last one).
struct Update {
  std::vector<SampledToken> tokens;
  // The request's figures up to these tokens, so that a caller that ends it early has them without
  // waiting for the finish, whose own may count what was computed beyond.
  int64_t cached_tokens = 0;
  int64_t degraded_positions = 0;
  std::optional<Finish> finish;  // present exactly once, in the last update
};

// Called on the engine's thread, in order; must not block and must not call the engine.
using UpdateCallback = std::function<void(Update update)>;

// Figures of one moment, consistent with each other.
struct EngineSnapshot {
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t waiting_max = 0;
  int64_t pages_used = 0;    // held by running requests
  int64_t pages_cached = 0;  // free, but still worth a prefix hit
  int64_t pages_total = 0;
  int64_t prompt_tokens = 0;  // once each; from here on: sums since the start
  int64_t generated_tokens = 0;
  int64_t prefix_queried_tokens = 0;
  int64_t prefix_hit_tokens = 0;
  int64_t preemptions = 0;
  int64_t steps = 0;
  int64_t step_ns = 0;          // time in steps
  int64_t exposed_wait_ns = 0;  // of it, standing still for rows
  int64_t degraded_positions = 0;
  int64_t prefill_tokens =
      0;                      // computed in chunks; computing again after a preemption counts again
  int64_t prefill_ns = 0;     // time of the steps that had such a chunk
  int64_t decode_tokens = 0;  // computed one at a time
  int64_t decode_ns = 0;      // time of the steps that had nothing else
  int64_t late_tokens = 0;    // whose rows were not asked for before their step
  obs::Buckets step_tokens;   // computed in each step
  obs::Buckets fetch_seconds;  // of the steps' lookups, from asking to the last row
  std::vector<LayerWait> layer_waits;
  ExpertLoad expert_load;
  // What the ranks did together, as rank 0 saw it; zero with one rank.
  int64_t rank_exchange_ns = 0;
  int64_t rank_exchange_bytes = 0;
  client::SourceStats rows;
  bool draining = false;
  Status memory;  // of now: ok while each row can be had and the ranks work together
};

class CompletionEngine {
 public:
  virtual ~CompletionEngine() = default;
  // Queues a request. Thread-safe. INVALID_ARGUMENT: bad input, or a prompt that does not fit;
  // RESOURCE_EXHAUSTED: the queue is full; UNAVAILABLE: draining. On success `callback` is called
  // until an update has a finish, then destroyed on the engine's thread.
  virtual Result<uint64_t> Submit(CompletionRequest request, UpdateCallback callback) = 0;
  // Ends a request soon with kAbort and frees what it holds. Unknown ids are ignored. Thread-safe.
  virtual void Cancel(uint64_t id) = 0;
  virtual EngineSnapshot Snapshot() const = 0;  // thread-safe
  // Refuses new requests from now on; those accepted go on. Thread-safe.
  virtual void StartDraining() = 0;
  // Ends every request accepted so far with kAbort, soon. Thread-safe.
  virtual void AbortAll() = 0;
  virtual int64_t positions_max() const = 0;  // prompt and completion together
};

}  // namespace engram::compute
