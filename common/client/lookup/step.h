// One lookup between Submit and its last row: the plan, what of it has arrived, and what the caller
// waits for. Planned and waited for by the caller's thread, filled in by the client's loop, and by
// the caller itself out of mapped memory.
#pragma once

#include <array>
#include <atomic>
#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/lookup/plan.h"
#include "common/client/row_source.h"

namespace engram::client {

// What a node has delivered.
struct NodeCounters {
  std::atomic<uint64_t> rows_fetched = 0;
  std::atomic<uint64_t> bytes_fetched = 0;
  std::atomic<uint64_t> requests = 0;
  std::array<std::atomic<uint64_t>, kPathCount> rows_by_path = {};
  std::atomic<uint64_t> rows_under_way = 0;  // asked for and not answered: a gauge, never reset

  void Add(Path path, uint64_t rows, uint32_t stored_row_bytes);
  void Reset();
};

// Rows of one section as they arrived: where each stored row lies.
struct ArrivedRows {
  uint32_t node = 0;
  const Section& section;
  uint32_t first = 0;  // in the section
  std::span<const std::byte* const> addresses;
};
inline constexpr uint32_t kPlacedRowsMax = 512;  // in one PlaceRows

// Whose question a step is: the client's own are in no count.
enum class Purpose : uint8_t {
  kCaller,
  kProbe,  // whether the node answers
  kProof,  // whether a node that was just connected to serves the right rows, and how fast
};

class Step;
class StepPool;
// Shared by the ticket and the requests of the loop; the last one returns the step to its pool.
using StepRef = boost::intrusive_ptr<Step>;

class Step : public PendingLookup {
 public:
  // `spin`: how long Wait polls before it sleeps. `clock` outlives the step.
  Step(std::shared_ptr<const PlanContext> context, const Clock& clock, Nanos spin);

  // Errors as LookupPlan::Make; then nothing must be sent. `costs`: of each node; they are looked
  // at where rows have several owners.
  Status Plan(std::span<const LayerLookup> layers, const SubmitOptions& options, Purpose purpose,
              const NodeCosts& costs);

  const LookupPlan& plan() const { return plan_; }
  LookupPlan& plan() { return plan_; }
  const PlanContext& context() const { return plan_.context(); }
  Purpose purpose() const { return purpose_; }
  Priority priority() const { return priority_; }
  TimePoint deadline() const { return deadline_; }
  TimePoint LayerDeadline(uint32_t layer_index) const { return layers_[layer_index].deadline; }

  // Checks stored rows and copies them to every place they were asked for; at most kPlacedRowsMax.
  // Rows that came from another owner meanwhile are left alone. DATA_LOSS when one is damaged, not
  // the row asked for, or came before from its only owner. Any thread.
  Status PlaceRows(const ArrivedRows& arrived, Path path, NodeCounters& counters);
  // Whether every row of the request is in place, or is not waited for any more. Any thread.
  bool Complete(const NodeRequest& request) const;
  // Requests to other owners for the rows of `request` that are missing: none where nothing is.
  // They are the step's. UNAVAILABLE: by `costs` a row has no owner that can serve it. The loop's
  // thread.
  Result<std::span<const NodeRequest>> MakeDetour(const NodeRequest& request, NodeCosts& costs);
  // Ends every unfinished layer of `request` with `why` and the number of its rows missing. Any
  // thread.
  void Fail(const NodeRequest& request, const Status& why);

  // The caller's. Wait ends a layer with DEADLINE_EXCEEDED when its deadline passes first.
  Status Wait(uint32_t layer_index) override;
  bool Ready(uint32_t layer_index) const override;
  Nanos took() const override;
  void Release() override;

  // Makes a ticket of the step, which holds it until it is destroyed.
  static Ticket MakeTicket(StepRef step);

 private:
  friend class StepPool;
  friend void intrusive_ptr_add_ref(Step* step) { ++step->references_; }
  friend void intrusive_ptr_release(Step* step);

  // One layer; but for the deadline under the mutex once the step is posted.
  struct Layer {
    std::vector<uint8_t> arrived;  // per distinct row
    uint32_t missing = 0;          // distinct rows not in place
    TimePoint deadline;
    Status status;
    std::atomic<bool> done = false;  // set last, under the mutex
  };

  bool Asked(uint32_t layer_index) const {
    return layer_index < layers_.size() && plan_.layers()[layer_index].asked;
  }
  void Spread(const LayerPlan& plan, Layer& layer, std::span<const uint32_t> indices);
  void Finish(Layer& layer, Status status);  // under the mutex
  uint32_t CountMissing(uint32_t layer_index, std::span<const uint32_t> rows) const;
  std::string DescribeMissing(uint32_t layer_index) const;

  LookupPlan plan_;
  NodeCosts costs_;                               // scratch of Plan
  std::vector<std::unique_ptr<Detour>> detours_;  // the loop's, after Plan
  const Clock& clock_;
  const Nanos spin_;
  Purpose purpose_ = Purpose::kCaller;
  Priority priority_ = Priority::kDecode;
  TimePoint planned_;
  TimePoint finished_;  // the last layer so far; under the mutex
  TimePoint deadline_;
  std::vector<Layer> layers_;  // one for each layer of the layout; never resized
  StepRef held_by_ticket_;
  std::atomic<uint32_t> references_ = 0;
  std::shared_ptr<StepPool> home_;  // while in use; shared: tickets may outlive their client

  // Guards what of the layers changes after posting, and the caller's buffers.
  mutable std::mutex mutex_;
  std::condition_variable changed_;
};

// Steps whose ticket and requests are gone, kept for their buffers.
class StepPool : public std::enable_shared_from_this<StepPool> {
 public:
  StepPool(std::shared_ptr<const PlanContext> context, const Clock& clock, Nanos spin)
      : context_(std::move(context)), clock_(clock), spin_(spin) {}
  StepRef Take();  // any thread

 private:
  friend void intrusive_ptr_release(Step* step);
  void Return(std::unique_ptr<Step> step);

  const std::shared_ptr<const PlanContext> context_;  // shared with the steps
  const Clock& clock_;
  const Nanos spin_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Step>> free_;  // guarded by mutex_
};

}  // namespace engram::client
