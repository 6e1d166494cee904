#include "compute/engine/scheduler.h"

#include <algorithm>

#include "common/base/check.h"

namespace engram::compute {

Scheduler::Scheduler(const SchedulerOptions& options, PagePool& pages, Advance advance)
    : options_(options),
      pages_(pages),
      allocator_(pages.pages(), pages.shape().positions),
      advance_(std::move(advance)) {
  CHECK(options.sequences_max > 0 && options.sequences_max <= options.step_tokens);
  CHECK_GT(options.prefill_chunk, 0);
}

int64_t Scheduler::PagesFor(int64_t positions) const {
  return (positions + allocator_.page_positions() - 1) / allocator_.page_positions();
}

void Scheduler::Enqueue(std::unique_ptr<Sequence> sequence) {
  sequence->tokens = sequence->request.prompt;
  if (sequence->request.is_probe) {
    waiting_.push_front(std::move(sequence));
  } else {
    waiting_.push_back(std::move(sequence));
  }
}

void Scheduler::TakePrefix(Sequence& sequence) {
  sequence.state = SequenceState(pages_.shape());
  if (sequence.request.score_prompt) return;  // every position's hidden state is wanted
  // The last token is computed in any case: its hidden state gives the next one.
  const int64_t pages_max = (sequence.length() - 1) / allocator_.page_positions();
  sequence.state.pages = allocator_.TakePrefix(sequence.tokens, pages_max, sequence.chain);
  sequence.published_pages = static_cast<int64_t>(sequence.state.pages.size());
  sequence.state.length = sequence.published_pages * allocator_.page_positions();
  sequence.planned = sequence.state.length;
  advance_(std::span(sequence.tokens).first(static_cast<size_t>(sequence.planned)),
           sequence.history);
  if (!sequence.state.pages.empty()) {
    for (size_t e = 0; e < sequence.state.conv_history.size(); ++e) {
      const std::span<float> history =
          pages_.History(sequence.state.pages.back(), static_cast<int64_t>(e));
      sequence.state.conv_history[e].assign(history.begin(), history.end());
    }
  }
  // After a preemption it finds its own pages, which saves nothing that was not computed before.
  if (sequence.was_admitted) return;
  prefix_queried_tokens_ += sequence.length();
  prefix_hit_tokens_ += sequence.state.length;
  sequence.cached_tokens = sequence.state.length;
}

bool Scheduler::Admit(TimePoint now) {
  bool admitted = false;
  while (!waiting_.empty()) {
    Sequence& next = *waiting_.front();
    if (running() >= options_.sequences_max + (next.request.is_probe ? 1 : 0)) break;
    // Not before all its tokens and one more have room: it would be preempted at once. Pages it
    // shares with the prefix cache are counted as if it needed its own.
    if (!running_.empty() && PagesFor(next.length() + 1) > allocator_.available()) break;
    TakePrefix(next);
    if (!next.was_admitted) next.admitted = now;
    next.was_admitted = true;
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    admitted = true;
  }
  return admitted;
}

ScheduledRun Scheduler::Plan(Sequence& sequence, int64_t count) {
  ScheduledRun run{&sequence, sequence.planned, count, sequence.history};
  sequence.planned += count;
  advance_(run.tokens(), sequence.history);
  return run;
}

std::vector<ScheduledRun> Scheduler::PlanKnown() {
  std::vector<Sequence*> unplanned;
  int64_t budget = options_.step_tokens;
  for (const auto& sequence : running_) {
    if (sequence->planned < sequence->length()) {
      unplanned.push_back(sequence.get());
    } else {
      --budget;  // its next token
    }
  }
  std::vector<ScheduledRun> runs;
  for (size_t i = 0; i < unplanned.size() && budget > 0; ++i) {
    const int64_t share = std::max<int64_t>(1, budget / static_cast<int64_t>(unplanned.size() - i));
    Sequence& sequence = *unplanned[i];
    const int64_t count =
        std::min({share, options_.prefill_chunk, sequence.length() - sequence.planned});
    runs.push_back(Plan(sequence, count));
    budget -= count;
  }
  return runs;
}

std::vector<ScheduledRun> Scheduler::PlanSampled() {
  std::vector<ScheduledRun> runs;
  for (const auto& sequence : running_) {
    const bool sampled = !sequence->update.tokens.empty() && !sequence->finished();
    if (sampled && sequence->planned + 1 == sequence->length()) {
      runs.push_back(Plan(*sequence, 1));
    }
  }
  return runs;
}

bool Scheduler::Reserve(const ScheduledRun& run) {
  std::vector<int32_t>& held = run.sequence->state.pages;
  while (static_cast<int64_t>(held.size()) < PagesFor(run.end())) {
    const std::optional<int32_t> page = allocator_.Allocate();
    if (!page) return false;
    held.push_back(*page);
  }
  return true;
}

void Scheduler::Preempt(Sequence* victim) {
  ++preemptions_;
  allocator_.Release(victim->state.pages);
  victim->state = SequenceState(pages_.shape());
  victim->planned = 0;
  victim->history = table::NgramState();
  victim->published_pages = 0;
  victim->chain = PageAllocator::kRoot;
  victim->prompt_logprobs.clear();
  const auto place = std::find_if(running_.begin(), running_.end(),
                                  [&](const auto& sequence) { return sequence.get() == victim; });
  CHECK(place != running_.end());
  waiting_.push_front(std::move(*place));
  running_.erase(place);
}

void Scheduler::ReservePages(std::vector<ScheduledRun>& step) {
  // Older sequences first, so that it is always the youngest that gives way.
  for (size_t place = 0; place < running_.size(); ++place) {
    Sequence* const sequence = running_[place].get();
    const auto run = std::find_if(step.begin(), step.end(), [&](const ScheduledRun& candidate) {
      return candidate.sequence == sequence;
    });
    if (run == step.end()) continue;
    while (!Reserve(*run)) {
      Sequence* const victim = running_.back().get();
      CHECK(victim != sequence || running_.size() > 1)
          << "a request larger than the whole cache was accepted";
      Preempt(victim);
      if (victim == sequence) break;
    }
  }
  std::erase_if(step, [&](const ScheduledRun& run) {
    return std::none_of(running_.begin(), running_.end(),
                        [&](const auto& sequence) { return sequence.get() == run.sequence; });
  });
}

void Scheduler::PublishPages(const std::vector<ScheduledRun>& step) {
  const int64_t size = allocator_.page_positions();
  for (const ScheduledRun& run : step) {
    Sequence& sequence = *run.sequence;
    if (sequence.tainted) continue;
    for (; (sequence.published_pages + 1) * size <= sequence.state.length;
         ++sequence.published_pages) {
      const auto page = static_cast<size_t>(sequence.published_pages);
      sequence.chain = allocator_.Publish(
          sequence.state.pages[page], sequence.chain,
          std::span(sequence.tokens)
              .subspan(page * static_cast<size_t>(size), static_cast<size_t>(size)));
    }
  }
}

std::vector<std::unique_ptr<Sequence>> Scheduler::RemoveFinished(
    std::vector<ScheduledRun>& planned) {
  std::vector<std::unique_ptr<Sequence>> removed;
  std::erase_if(planned, [](const ScheduledRun& run) { return run.sequence->finished(); });
  const auto take = [&](auto& queue) {
    for (auto& sequence : queue) {
      if (!sequence->finished()) continue;
      allocator_.Release(sequence->state.pages);
      removed.push_back(std::move(sequence));
    }
    std::erase(queue, nullptr);
  };
  take(running_);
  take(waiting_);
  return removed;
}

void Scheduler::ForEach(const std::function<void(Sequence&)>& visit) {
  for (const auto& sequence : running_) visit(*sequence);
  for (const auto& sequence : waiting_) visit(*sequence);
}

}  // namespace engram::compute
