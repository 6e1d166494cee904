#include "common/client/lookup/step_pool.h"

namespace engram::client {
namespace {

constexpr size_t kStepsPooledMax = 64;

}  // namespace

StepRef::~StepRef() {
  if (pooled_ == nullptr || --pooled_->references > 0) return;
  const std::shared_ptr<StepPool> home = std::move(pooled_->home);
  home->Return(pooled_);
}

StepRef StepPool::Take(const std::shared_ptr<const PlanContext>& context) {
  std::unique_ptr<PooledStep> step;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      step = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (step == nullptr) step = std::make_unique<PooledStep>(context);
  step->home = shared_from_this();
  return StepRef(step.release());
}

void StepPool::Return(PooledStep* step) {
  std::unique_ptr<PooledStep> owned(step);
  const std::lock_guard lock(mutex_);
  if (free_.size() < kStepsPooledMax) free_.push_back(std::move(owned));
}

}  // namespace engram::client
