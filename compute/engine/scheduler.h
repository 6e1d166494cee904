// Which tokens the next step computes. Requests are admitted in the order they came; a step takes
// one token of each sequence that generates and shares the rest of its budget evenly among the
// prompts, so a long prompt neither stops nor starves the others. When pages run out the sequence
// admitted last gives its own back and is computed again later. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "compute/engine/sequence.h"

namespace engram::compute {

struct SchedulerOptions {
  int64_t step_tokens = 512;    // of one step, all sequences together
  int64_t prefill_chunk = 256;  // of one sequence in one step
  int64_t sequences_max = 16;   // running at once; <= step_tokens
};

class Scheduler {
 public:
  // Appends to an n-gram state; Prefetcher::Advance.
  using Advance = std::function<void(std::span<const int32_t>, table::NgramState&)>;

  Scheduler(const SchedulerOptions& options, PagePool& pages, Advance advance);

  // A probe goes before all others, and has a place of its own beside sequences_max.
  void Enqueue(std::unique_ptr<Sequence> sequence);
  // Moves waiting sequences to the running ones while there is room for all their known tokens;
  // takes what the prefix cache has of them. True when there was one.
  bool Admit(TimePoint now);
  // Tokens that are known and not planned yet, within the budget of a step that also generates with
  // every running sequence whose tokens are all planned. They count as planned from now on.
  std::vector<ScheduledRun> PlanKnown();
  // The same for the tokens sampled in the step that just ended.
  std::vector<ScheduledRun> PlanSampled();
  // Gives every run the pages its positions need. A sequence that gets none is preempted, and its
  // runs leave `step`.
  void ReservePages(std::vector<ScheduledRun>& step);
  // After the step: full pages become findable.
  void PublishPages(const std::vector<ScheduledRun>& step);
  // Takes sequences with a finish out, frees their pages and removes their runs from `planned`.
  std::vector<std::unique_ptr<Sequence>> RemoveFinished(std::vector<ScheduledRun>& planned);

  // Running and waiting ones, for cancelling and deadlines.
  void ForEach(const std::function<void(Sequence&)>& visit);
  bool idle() const { return running_.empty() && waiting_.empty(); }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t preemptions() const { return preemptions_; }
  int64_t prefix_queried_tokens() const { return prefix_queried_tokens_; }
  int64_t prefix_hit_tokens() const { return prefix_hit_tokens_; }
  const PageAllocator& allocator() const { return allocator_; }

 private:
  int64_t PagesFor(int64_t positions) const;
  void TakePrefix(Sequence& sequence);
  ScheduledRun Plan(Sequence& sequence, int64_t count);
  bool Reserve(const ScheduledRun& run);
  void Preempt(Sequence* victim);

  SchedulerOptions options_;
  PagePool& pages_;
  PageAllocator allocator_;
  Advance advance_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
  int64_t preemptions_ = 0;
  int64_t prefix_queried_tokens_ = 0;
  int64_t prefix_hit_tokens_ = 0;
};

}  // namespace engram::compute
