// The engine: one thread that takes requests, schedules steps, computes them and hands out tokens.
// Rows are asked for before they are needed: those of the next step's chunks before this step
// computes, a sampled token's before anything else is done with it. What a request gets does not
// depend on which others are there.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "compute/engine/completion.h"
#include "compute/engine/leader.h"
#include "compute/engine/scheduler.h"
#include "compute/memory/prefetcher.h"
#include "compute/model/transformer.h"

namespace engram::compute {

struct ServingOptions {
  SchedulerOptions scheduler;
  int64_t queue_max = 256;  // requests waiting; one more is refused
  // Rows that do not come: false, the request ends with the error; true, the gates of their
  // positions are closed, which is counted and said with the finish.
  bool degrade = false;
};

class ServingEngine : public CompletionEngine {
 public:
  // Starts the thread, the only one that uses `prefetcher`, `pool` and `pages` from then on; where
  // that fails `started` says why, and nothing may be submitted. All references must outlive the
  // engine.
  ServingEngine(const ModelConfig& config, const Transformer& transformer, Prefetcher& prefetcher,
                kernels::Pool& pool, PagePool& pages, const ServingOptions& options,
                parallel::Collective& ranks = parallel::Solo(), const Clock& clock = Clock::Real());
  // Aborts every request (their callbacks are called) and joins.
  ~ServingEngine() override;
  const Status& started() const { return started_; }

  Result<uint64_t> Submit(CompletionRequest request, UpdateCallback callback) override;
  void Cancel(uint64_t id) override;
  EngineSnapshot Snapshot() const override;
  void StartDraining() override;
  void AbortAll() override;
  int64_t positions_max() const override;

 private:
  using Step = std::vector<ScheduledRun>;

  // The loop, in its order.
  void Loop();
  bool TakeRequests();  // sleeps while there is nothing to do; false: stop
  void EndCancelledAndOverdue(Step& planned);
  Step PlanChunks();  // and asks for their rows
  std::span<const float> Compute(const Step& step);
  void ScorePrompts(const Step& step, std::span<const float> hidden);
  void Sample(const Step& step, std::span<const float> hidden, Step& next);
  void Deliver(Step& next);
  void CountStep(const Step& step, TimePoint start);
  void TakeFigures();

  // False when the ranks have stopped working together: then every request has ended.
  bool RanksWork();
  void Logits(std::span<const float> hidden);
  Status Check(const CompletionRequest& request) const;
  void AskForRows(const Step& step, client::Priority priority);
  Status ScoreRun(const ScheduledRun& run, std::span<const float> hidden);
  void JudgeRows(const ScheduledRun& run, const Status& status);
  void AppendToken(Sequence& sequence, int32_t token);
  bool IsEos(int32_t token) const;
  void End(Sequence& sequence, FinishReason reason, Status status = OkStatus()) const;

  const ModelConfig& config_;
  const Transformer& transformer_;
  Prefetcher& prefetcher_;
  kernels::Pool& pool_;
  PagePool& pages_;
  const ServingOptions options_;
  const Clock& clock_;
  Scheduler scheduler_;
  RankLeader leader_;
  std::vector<float> logits_;
  EngineSnapshot figures_;  // the engine's thread's own

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Sequence>> submitted_;
  std::vector<uint64_t> cancelled_;
  EngineSnapshot snapshot_;
  uint64_t next_id_ = 1;
  uint64_t abort_ids_before_ = 0;
  Status broken_;  // what ended the work of all ranks
  bool draining_ = false;
  bool stopping_ = false;

  std::vector<uint64_t> to_cancel_;  // the engine's thread's, like the next one
  uint64_t abort_before_ = 0;
  Status started_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace engram::compute
