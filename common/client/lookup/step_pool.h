// Steps whose ticket and requests are gone, kept for their buffers: after the first steps a lookup
// allocates nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "common/client/lookup/plan.h"

namespace engram::client {

class StepPool;

struct PooledStep;

// Where the step's one ticket lives.
struct TicketRoom {
  PooledStep* owner = nullptr;
  alignas(std::max_align_t) std::byte bytes[64];
};

// A step, how many refer to it, and room for its ticket.
struct PooledStep {
  explicit PooledStep(std::shared_ptr<const PlanContext> context) : step(std::move(context)) {
    ticket.owner = this;
  }
  Step step;
  std::atomic<uint32_t> references = 0;
  std::shared_ptr<StepPool> home;  // shared: tickets may outlive their client
  TicketRoom ticket;
};

// Shared by the ticket and the requests of the IO thread; the last one returns the step.
class StepRef {
 public:
  StepRef() = default;
  explicit StepRef(PooledStep* pooled) : pooled_(pooled) { ++pooled_->references; }
  StepRef(const StepRef& other) : pooled_(other.pooled_) {
    if (pooled_ != nullptr) ++pooled_->references;
  }
  StepRef(StepRef&& other) noexcept : pooled_(std::exchange(other.pooled_, nullptr)) {}
  StepRef& operator=(StepRef other) noexcept {
    std::swap(pooled_, other.pooled_);
    return *this;
  }
  ~StepRef();

  Step* operator->() const { return &pooled_->step; }
  Step& operator*() const { return pooled_->step; }
  // Gives the reference away, for Adopt to take.
  PooledStep* Release() { return std::exchange(pooled_, nullptr); }
  static StepRef Adopt(PooledStep* pooled) {
    StepRef ref;
    ref.pooled_ = pooled;
    return ref;
  }
  explicit operator bool() const { return pooled_ != nullptr; }

 private:
  PooledStep* pooled_ = nullptr;
};

class StepPool : public std::enable_shared_from_this<StepPool> {
 public:
  // Any thread.
  StepRef Take(const std::shared_ptr<const PlanContext>& context);
  void Return(PooledStep* step);

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<PooledStep>> free_;  // guarded by mutex_
};

}  // namespace engram::client
