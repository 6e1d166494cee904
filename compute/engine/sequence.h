// One request on its way: the tokens known so far, how far they are computed and how far their rows
// are asked for. Owned by the scheduler.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/table/ngram.h"
#include "compute/engine/completion.h"
#include "compute/engine/page_allocator.h"
#include "compute/engine/sampler.h"
#include "compute/memory/prefetcher.h"
#include "compute/model/sequence_state.h"

namespace engram::compute {

struct Sequence {
  uint64_t id = 0;
  CompletionRequest request;
  UpdateCallback callback;
  TimePoint submitted, admitted, first_token;  // zero: not yet

  std::vector<int32_t> tokens;  // the prompt, then what was generated
  TokenCounts generated_counts;
  SequenceState state;  // state.length of `tokens` are computed

  // Tokens [0, planned) are computed, in the step under way or planned for the next one; `history`
  // is the n-gram state behind them.
  int64_t planned = 0;
  table::NgramState history;

  int64_t published_pages = 0;
  PageAllocator::Chain chain = PageAllocator::kRoot;  // of the last published page
  // A preemption makes positions be computed again: these figures hold each of them once.
  std::vector<bool> degraded;         // by position: computed, at least once, without its rows
  int64_t degraded_positions = 0;     // of `degraded`
  int64_t prompt_tokens_counted = 0;  // the prompt is computed up to here, at least once
  bool tainted = false;               // computed without all its rows: its pages are not published

  int64_t cached_tokens = 0;  // of the prompt, at the first admission
  bool was_admitted = false;
  std::vector<float> prompt_logprobs;
  Update update;  // to be delivered at the end of the step

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t prompt_length() const { return static_cast<int64_t>(request.prompt.size()); }
  int64_t generated() const { return length() - prompt_length(); }
  bool finished() const { return update.finish.has_value(); }

  // Both return how many of the positions are new.
  int64_t CountDegraded(int64_t first, int64_t end) {
    degraded.resize(std::max(degraded.size(), static_cast<size_t>(end)));
    const auto from = degraded.begin() + first, to = degraded.begin() + end;
    const int64_t added = std::count(from, to, false);
    std::fill(from, to, true);
    degraded_positions += added;
    return added;
  }
  int64_t CountPrompt(int64_t first, int64_t end) {
    const int64_t known = std::max(first, prompt_tokens_counted);
    prompt_tokens_counted = std::max(prompt_tokens_counted, std::min(end, prompt_length()));
    return std::max<int64_t>(0, prompt_tokens_counted - known);
  }
};

// Consecutive tokens of one sequence that are computed in one step.
struct ScheduledRun {
  Sequence* sequence = nullptr;
  int64_t first = 0;
  int64_t count = 0;
  table::NgramState before;

  int64_t end() const { return first + count; }
  std::span<const int32_t> tokens() const {
    return std::span(sequence->tokens)
        .subspan(static_cast<size_t>(first), static_cast<size_t>(count));
  }
  TokenRun token_run() const { return {sequence->id, first, tokens(), before}; }
  // True for prompt tokens (and tokens computed again after a preemption).
  bool is_prefill() const { return count > 1 || end() <= sequence->prompt_length(); }
};

}  // namespace engram::compute
