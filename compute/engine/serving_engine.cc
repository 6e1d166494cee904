#include "compute/engine/serving_engine.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/threads.h"

namespace engram::compute {
namespace {

Status NotFinite() {
  return InternalError(
      "a logit is not a finite number: the weights or the Engram rows hold NaN or infinity");
}

}  // namespace

ServingEngine::ServingEngine(const ModelConfig& config, const Transformer& transformer,
                             Prefetcher& prefetcher, kernels::Pool& pool, PagePool& pages,
                             const ServingOptions& options, parallel::Collective& ranks,
                             const Clock& clock)
    : config_(config),
      transformer_(transformer),
      prefetcher_(prefetcher),
      pool_(pool),
      pages_(pages),
      options_(options),
      clock_(clock),
      scheduler_(options.scheduler, pages,
                 [this](std::span<const int32_t> tokens, table::NgramState& state) {
                   // Ids are checked on submission, so the map knows them.
                   const Status status = prefetcher_.Advance(tokens, state);
                   CHECK(status.ok()) << status.message();
                 }),
      leader_(ranks) {
  figures_.step_tokens = obs::Buckets({1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048});
  figures_.expert_load = ExpertLoad(config);
  TakeFigures();
  Result<std::thread> started = StartThread("engine", [this] { Loop(); });
  started_ = started.status();
  if (started.ok()) thread_ = *std::move(started);
}

ServingEngine::~ServingEngine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void ServingEngine::Loop() {
  Step step;  // what the next round computes, its rows under way
  while (TakeRequests()) {
    EndCancelledAndOverdue(step);
    if (scheduler_.Admit(clock_.Now())) TakeFigures();  // admitted requests have left the queue
    if (step.empty()) step = PlanChunks();              // there was nothing to plan it behind
    scheduler_.ReservePages(step);
    Step next = PlanChunks();
    if (!step.empty()) {
      const TimePoint start = clock_.Now();
      const std::span<const float> hidden = Compute(step);
      ScorePrompts(step, hidden);
      Sample(step, hidden, next);
      if (RanksWork()) scheduler_.PublishPages(step);
      CountStep(step, start);
    }
    Deliver(next);
    step = std::move(next);
  }
}

bool ServingEngine::TakeRequests() {
  std::vector<std::unique_ptr<Sequence>> taken;
  bool stop = false;
  {
    std::unique_lock lock(mutex_);
    if (scheduler_.idle()) {
      // Cancels wake the loop too, so that cancels of finished requests do not pile up.
      wake_.wait(lock, [this] { return stopping_ || !submitted_.empty() || !cancelled_.empty(); });
    }
    stop = stopping_;
    taken.swap(submitted_);
    to_cancel_.swap(cancelled_);
    abort_before_ = abort_ids_before_;
    snapshot_.waiting += static_cast<int64_t>(taken.size());
  }
  for (auto& sequence : taken) scheduler_.Enqueue(std::move(sequence));
  if (!stop) return true;
  scheduler_.ForEach([this](Sequence& sequence) { End(sequence, FinishReason::kAbort); });
  Step none;
  Deliver(none);
  prefetcher_.Cancel();
  leader_.End();
  return false;
}

void ServingEngine::EndCancelledAndOverdue(Step& planned) {
  const TimePoint now = clock_.Now();
  bool ended = false;
  scheduler_.ForEach([&](Sequence& sequence) {
    if (sequence.id < abort_before_ ||
        std::find(to_cancel_.begin(), to_cancel_.end(), sequence.id) != to_cancel_.end()) {
      End(sequence, FinishReason::kAbort);
    } else if (sequence.request.deadline <= now) {
      End(sequence, FinishReason::kError,
          DeadlineExceeded(fmt::format("the request's deadline passed after {} of {} tokens",
                                       sequence.generated(), sequence.request.tokens_max)));
    }
    ended = ended || sequence.finished();
  });
  to_cancel_.clear();
  if (ended) Deliver(planned);
}

ServingEngine::Step ServingEngine::PlanChunks() {
  Step step = scheduler_.PlanKnown();
  AskForRows(step, client::Priority::kPrefill);
  return step;
}

void ServingEngine::AskForRows(const Step& step, client::Priority priority) {
  std::vector<TokenRun> runs;
  for (const ScheduledRun& run : step) runs.push_back(run.token_run());
  // When this fails the step retries the lookup and reports its error.
  const Status asked = prefetcher_.Submit(runs, priority);
  static_cast<void>(asked);
}

std::span<const float> ServingEngine::Compute(const Step& step) {
  std::vector<TokenRun> runs;
  std::vector<Segment> segments;
  for (const ScheduledRun& run : step) {
    runs.push_back(run.token_run());
    segments.push_back({run.tokens(), &run.sequence->state});
  }
  StepRows rows = prefetcher_.Take(runs);
  if (leader_.ranks().size() > 1) {
    std::vector<uint64_t> alive, sequences;
    scheduler_.ForEach([&](const Sequence& sequence) { alive.push_back(sequence.id); });
    for (const ScheduledRun& run : step) sequences.push_back(run.sequence->id);
    leader_.StartStep(std::move(alive), sequences, segments);
  }
  SharedRows shared(rows, runs.size(), leader_.ranks());
  const std::span<const float> hidden =
      transformer_.Forward(segments, shared, pages_, &figures_.expert_load);
  for (size_t i = 0; i < step.size(); ++i) JudgeRows(step[i], rows.status(i));
  prefetcher_.EndStep(std::move(rows));
  RanksWork();
  return hidden;
}

bool ServingEngine::RanksWork() {
  const Status status = leader_.status();
  if (status.ok()) return true;
  scheduler_.ForEach([&](Sequence& sequence) { End(sequence, FinishReason::kError, status); });
  const std::lock_guard lock(mutex_);
  broken_ = status;
  return false;
}

void ServingEngine::Logits(std::span<const float> hidden) {
  leader_.StartLogits(hidden);
  transformer_.Logits(hidden, logits_);
}

void ServingEngine::JudgeRows(const ScheduledRun& run, const Status& status) {
  if (status.ok()) return;
  Sequence& sequence = *run.sequence;
  sequence.tainted = true;
  if (!options_.degrade) return End(sequence, FinishReason::kError, status);
  figures_.degraded_positions += sequence.CountDegraded(run.first, run.end());
}

void ServingEngine::ScorePrompts(const Step& step, std::span<const float> hidden) {
  const auto width = static_cast<size_t>(config_.hidden_size);
  for (const ScheduledRun& run : step) {
    const size_t floats = static_cast<size_t>(run.count) * width;
    Sequence& sequence = *run.sequence;
    if (sequence.request.score_prompt && !sequence.finished()) {
      const Status status = ScoreRun(run, hidden.first(floats));
      const bool done = sequence.state.length == sequence.prompt_length();
      if (!status.ok()) {
        End(sequence, FinishReason::kError, status);
      } else if (done && sequence.request.tokens_max == 0) {
        End(sequence, FinishReason::kLength);
      }
    }
    hidden = hidden.subspan(floats);
  }
}

Status ServingEngine::ScoreRun(const ScheduledRun& run, std::span<const float> hidden) {
  const int64_t width = config_.hidden_size, vocab = config_.vocab_size;
  Sequence& sequence = *run.sequence;
  // Row i predicts the token after it; the prompt's last one predicts nothing that is known.
  const int64_t known = std::clamp<int64_t>(sequence.prompt_length() - 1 - run.first, 0, run.count);
  for (int64_t row = 0; row < known; row += kLogitRows) {
    const int64_t count = std::min(kLogitRows, known - row);
    logits_.resize(count * vocab);
    Logits(hidden.subspan(row * width, count * width));
    RETURN_IF_ERROR(leader_.status());
    if (!kernels::AllFinite(logits_)) return NotFinite();
    for (int64_t i = 0; i < count; ++i) {
      const int32_t next = sequence.tokens[run.first + row + i + 1];
      sequence.prompt_logprobs.push_back(static_cast<float>(
          kernels::LogProbability(std::span(logits_).subspan(i * vocab, vocab), next)));
    }
  }
  return OkStatus();
}

void ServingEngine::Sample(const Step& step, std::span<const float> hidden, Step& next) {
  const auto width = static_cast<size_t>(config_.hidden_size);
  const auto vocab = static_cast<size_t>(config_.vocab_size);
  std::vector<Sequence*> sampled;
  std::vector<float> last;  // hidden states of their last tokens
  size_t end_row = 0;
  for (const ScheduledRun& run : step) {
    end_row += static_cast<size_t>(run.count);
    if (run.sequence->finished() || run.end() < run.sequence->length()) continue;
    sampled.push_back(run.sequence);
    last.insert(last.end(), hidden.begin() + static_cast<ptrdiff_t>((end_row - 1) * width),
                hidden.begin() + static_cast<ptrdiff_t>(end_row * width));
  }
  if (sampled.empty()) return;
  logits_.resize(sampled.size() * vocab);
  Logits(last);
  if (!RanksWork()) return;
  const auto logits_of = [&](size_t i) {
    return std::span<const float>(logits_).subspan(i * vocab, vocab);
  };
  std::vector<int32_t> tokens(sampled.size());
  const auto count = static_cast<int64_t>(sampled.size());
  const auto each = [&](const auto& body) {
    pool_.Run(count, 1, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) body(i);
    });
  };
  each([&](size_t i) {
    const Sequence& sequence = *sampled[i];
    tokens[i] = !kernels::AllFinite(logits_of(i))
                    ? -1
                    : ChooseToken(logits_of(i), sequence.request.sampling,
                                  sequence.generated_counts, sequence.generated());
  });
  for (size_t i = 0; i < sampled.size(); ++i) {
    if (tokens[i] < 0) {
      sampled[i]->tainted = true;
      End(*sampled[i], FinishReason::kError, NotFinite());
    } else {
      AppendToken(*sampled[i], tokens[i]);
    }
  }
  const Step decodes = scheduler_.PlanSampled();
  AskForRows(decodes, client::Priority::kDecode);
  next.insert(next.end(), decodes.begin(), decodes.end());
  each([&](size_t i) {
    if (tokens[i] < 0) return;
    sampled[i]->update.tokens.back() =
        ReportToken(logits_of(i), tokens[i], sampled[i]->request.sampling.top_logprobs);
  });
}

void ServingEngine::AppendToken(Sequence& sequence, int32_t token) {
  sequence.tokens.push_back(token);
  ++sequence.generated_counts[token];
  sequence.update.tokens.push_back({token, 0, {}});  // its report follows
  if (sequence.first_token == TimePoint()) sequence.first_token = clock_.Now();
  ++figures_.generated_tokens;
  const std::vector<int32_t>& stops = sequence.request.stop_ids;
  const bool stops_here = std::find(stops.begin(), stops.end(), token) != stops.end();
  if (stops_here || (!sequence.request.ignore_eos && IsEos(token))) {
    return End(sequence, FinishReason::kStop);
  }
  if (sequence.generated() == sequence.request.tokens_max) End(sequence, FinishReason::kLength);
}

bool ServingEngine::IsEos(int32_t token) const {
  return std::find(config_.eos_ids.begin(), config_.eos_ids.end(), token) != config_.eos_ids.end();
}

void ServingEngine::End(Sequence& sequence, FinishReason reason, Status status) const {
  if (sequence.finished()) return;
  Finish finish;
  finish.reason = reason;
  finish.status = std::move(status);
  finish.prompt_tokens = sequence.prompt_length();
  finish.cached_tokens = sequence.cached_tokens;
  finish.completion_tokens = sequence.generated();
  finish.degraded_positions = sequence.degraded_positions;
  finish.prompt_logprobs = std::move(sequence.prompt_logprobs);
  const TimePoint now = clock_.Now();
  const auto until = [now](TimePoint next) { return next == TimePoint() ? now : next; };
  finish.queue_time = until(sequence.admitted) - sequence.submitted;
  if (sequence.was_admitted) finish.prefill_time = until(sequence.first_token) - sequence.admitted;
  if (sequence.generated() > 0) finish.decode_time = now - sequence.first_token;
  sequence.update.finish = std::move(finish);
}

void ServingEngine::Deliver(Step& next) {
  const auto finished = scheduler_.RemoveFinished(next);
  TakeFigures();  // before the callbacks, so that a callback of an end finds its pages free
  const auto tell = [](Sequence& sequence) {
    sequence.update.cached_tokens = sequence.cached_tokens;
    sequence.update.degraded_positions = sequence.degraded_positions;
    sequence.callback(std::exchange(sequence.update, {}));
  };
  scheduler_.ForEach([&](Sequence& sequence) {
    if (!sequence.update.tokens.empty()) tell(sequence);
  });
  for (const auto& sequence : finished) tell(*sequence);
}

void ServingEngine::CountStep(const Step& step, TimePoint start) {
  const int64_t elapsed = Nanos(clock_.Now() - start).count();
  ++figures_.steps;
  figures_.step_ns += elapsed;
  bool prefill = false;
  int64_t tokens = 0;
  for (const ScheduledRun& run : step) {
    tokens += run.count;
    prefill = prefill || run.is_prefill();
    (run.is_prefill() ? figures_.prefill_tokens : figures_.decode_tokens) += run.count;
    figures_.prompt_tokens += run.sequence->CountPrompt(run.first, run.end());
  }
  figures_.step_tokens.Observe(static_cast<double>(tokens));
  (prefill ? figures_.prefill_ns : figures_.decode_ns) += elapsed;
}

void ServingEngine::TakeFigures() {
  figures_.running = scheduler_.running();
  figures_.waiting = scheduler_.waiting();
  figures_.waiting_max = options_.queue_max;
  figures_.pages_used = scheduler_.allocator().used();
  figures_.pages_cached = scheduler_.allocator().cached();
  figures_.pages_total = scheduler_.allocator().total();
  figures_.prefix_queried_tokens = scheduler_.prefix_queried_tokens();
  figures_.prefix_hit_tokens = scheduler_.prefix_hit_tokens();
  figures_.preemptions = scheduler_.preemptions();
  figures_.exposed_wait_ns = prefetcher_.exposed_ns();
  figures_.late_tokens = prefetcher_.late_tokens();
  figures_.layer_waits = prefetcher_.waits();
  figures_.fetch_seconds = prefetcher_.fetch_seconds();
  figures_.rank_exchange_ns = leader_.ranks().exchange().time.count();
  figures_.rank_exchange_bytes = leader_.ranks().exchange().bytes;
  const std::lock_guard lock(mutex_);
  snapshot_ = figures_;
}

EngineSnapshot ServingEngine::Snapshot() const {
  client::SourceStats rows = prefetcher_.source_stats();
  const std::lock_guard lock(mutex_);
  EngineSnapshot snapshot = snapshot_;
  snapshot.waiting += static_cast<int64_t>(submitted_.size());
  snapshot.draining = draining_;
  snapshot.memory = broken_.ok() ? rows.served : broken_;
  snapshot.rows = std::move(rows);
  return snapshot;
}

int64_t ServingEngine::positions_max() const {
  return std::min(config_.positions_max, pages_.pages() * pages_.shape().positions);
}

Status ServingEngine::Check(const CompletionRequest& request) const {
  if (request.prompt.empty())
    return InvalidArgument("the list of tokens is empty; at least one is needed");
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    if (request.prompt[i] >= 0 && request.prompt[i] < config_.vocab_size) continue;
    return OutOfRange(fmt::format("token {} at index {} is outside the vocabulary of {}",
                                  request.prompt[i], i, config_.vocab_size));
  }
  if (request.tokens_max < (request.score_prompt ? 0 : 1)) {
    return InvalidArgument(
        fmt::format("{} tokens are asked for; at least one is needed", request.tokens_max));
  }
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt > positions_max() || request.tokens_max > positions_max() - prompt) {
    return InvalidArgument(fmt::format(
        "{} tokens and {} more exceed the {} positions a request can have (the smaller of "
        "max_position_embeddings {} and the cache, which cache.mib sets)",
        prompt, request.tokens_max, positions_max(), config_.positions_max));
  }
  return request.sampling.Check(config_.vocab_size);
}

Result<uint64_t> ServingEngine::Submit(CompletionRequest request, UpdateCallback callback) {
  RETURN_IF_ERROR(Check(request));
  auto sequence = std::make_unique<Sequence>();
  sequence->request = std::move(request);
  sequence->callback = std::move(callback);
  sequence->submitted = clock_.Now();
  uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (draining_ || stopping_) return Unavailable("the engine is shutting down");
    RETURN_IF_ERROR(broken_);
    const int64_t waiting = snapshot_.waiting + static_cast<int64_t>(submitted_.size());
    if (waiting >= options_.queue_max && !sequence->request.is_probe) {
      return ResourceExhausted(fmt::format(
          "{} requests are waiting already (engine.queue_max); try again later", waiting));
    }
    id = sequence->id = next_id_++;
    submitted_.push_back(std::move(sequence));
  }
  wake_.notify_one();
  return id;
}

void ServingEngine::Cancel(uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
  }
  wake_.notify_one();
}

void ServingEngine::AbortAll() {
  const std::lock_guard lock(mutex_);
  abort_ids_before_ = next_id_;
}

void ServingEngine::StartDraining() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
}

}  // namespace engram::compute
