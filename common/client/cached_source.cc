#include "common/client/cached_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <new>

namespace engram::client {
namespace {

constexpr size_t kStepsPooledMax = 64;

// One layer of one step: what of it the inner source was asked for.
struct LayerState {
  LayerLookup lookup;            // as the caller gave it
  bool settled = false;          // everything is in place
  bool cacheable = false;        // whole n-grams
  std::vector<uint32_t> missed;  // numbers of the n-grams the cache has not
  // Of an inner lookup of some n-grams only: their ids and bytes. They only grow.
  bool partial = false;
  std::vector<uint64_t> rows;
  std::vector<std::byte> bytes;
};

}  // namespace

struct CachedSource::Core {
  std::unique_ptr<NgramCache> cache;
  size_t layer_count = 0;
  size_t row_bytes = 0;
  std::atomic<uint64_t> rows_asked = 0;
  std::mutex mutex;
  std::vector<std::unique_ptr<Step>> free;  // kept for their buffers

  static Step* TakeStep(const std::shared_ptr<Core>& core);
  bool WellFormed(std::span<const LayerLookup> layers) const;
};

// What a ticket needs, pooled; also holds the ticket itself, so that a step allocates nothing.
struct CachedSource::Step {
  struct TicketMemory {
    Step* step = nullptr;
    alignas(std::max_align_t) std::array<std::byte, 64> bytes;
  };

  void Probe(const LayerLookup& lookup);
  void Settle(LayerState& state);
  LayerState* StateOf(uint32_t layer_index);

  TicketMemory ticket_memory;
  std::shared_ptr<Core> core;      // while in use; shared: a ticket may outlive its source
  std::vector<LayerState> states;  // of the first layer_count layers asked for, in their order
  size_t layer_count = 0;
  std::vector<LayerLookup> asked;  // of the inner source
  std::unique_ptr<Ticket> inner;   // null when the cache had everything
};

class CachedSource::CachedTicket : public Ticket {
 public:
  explicit CachedTicket(Step* step) : step_(step) {}
  // The inner ticket goes first: it writes into the step's buffers, or the caller's, until then.
  ~CachedTicket() override { step_->inner.reset(); }

  Status Wait(uint32_t layer_index) override {
    LayerState* const state = step_->StateOf(layer_index);
    if (state == nullptr) {
      return InvalidArgument(
          fmt::format("this lookup did not ask for Engram layer index {}", layer_index));
    }
    if (state->settled) return OkStatus();
    RETURN_IF_ERROR(step_->inner->Wait(layer_index));
    step_->Settle(*state);
    return OkStatus();
  }

  bool Ready(uint32_t layer_index) const override {
    const LayerState* const state = step_->StateOf(layer_index);
    return state == nullptr || state->settled || step_->inner->Ready(layer_index);
  }
  Nanos took() const override {
    return step_->inner == nullptr ? Nanos::zero() : step_->inner->took();
  }

  static void* operator new(size_t, Step& step);
  static void operator delete(void* ticket);
  static void operator delete(void*, Step&) {}

 private:
  Step* const step_;
};

void* CachedSource::CachedTicket::operator new(size_t size_bytes, Step& step) {
  CHECK_LE(size_bytes, step.ticket_memory.bytes.size());
  step.ticket_memory.step = &step;
  return step.ticket_memory.bytes.data();
}

// Only here, after the last destructor, may the step and the ticket's memory be used again.
void CachedSource::CachedTicket::operator delete(void* ticket) {
  auto* const bytes = static_cast<std::byte*>(ticket);
  auto* const memory =
      reinterpret_cast<Step::TicketMemory*>(bytes - offsetof(Step::TicketMemory, bytes));
  std::unique_ptr<Step> step(memory->step);
  const std::shared_ptr<Core> core = std::move(step->core);
  const std::lock_guard lock(core->mutex);
  if (core->free.size() < kStepsPooledMax) core->free.push_back(std::move(step));
}

CachedSource::Step* CachedSource::Core::TakeStep(const std::shared_ptr<Core>& core) {
  std::unique_ptr<Step> step;
  {
    const std::lock_guard lock(core->mutex);
    if (!core->free.empty()) {
      step = std::move(core->free.back());
      core->free.pop_back();
    }
  }
  if (step == nullptr) step = std::make_unique<Step>();
  step->core = core;
  step->layer_count = 0;
  step->asked.clear();
  return step.release();
}

// What the inner source would refuse must not be half answered by the cache.
bool CachedSource::Core::WellFormed(std::span<const LayerLookup> layers) const {
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].layer_index >= layer_count) return false;
    if (layers[i].out.size() != layers[i].rows.size() * row_bytes) return false;
    for (size_t k = 0; k < i; ++k) {
      if (layers[k].layer_index == layers[i].layer_index) return false;
    }
  }
  return true;
}

LayerState* CachedSource::Step::StateOf(uint32_t layer_index) {
  for (size_t i = 0; i < layer_count; ++i) {
    if (states[i].lookup.layer_index == layer_index) return &states[i];
  }
  return nullptr;
}

// Takes what the cache has, and asks for the rest: into the caller's buffer when that is
// everything.
void CachedSource::Step::Probe(const LayerLookup& lookup) {
  NgramCache& cache = *core->cache;
  if (states.size() == layer_count) states.emplace_back();
  LayerState& state = states[layer_count++];
  state.lookup = lookup;
  state.settled = false;
  state.partial = false;
  const size_t ngram_rows = cache.ngram_rows();
  state.cacheable = lookup.rows.size() % ngram_rows == 0;
  if (!state.cacheable) {
    asked.push_back(lookup);
    return;
  }
  cache.Lookup(lookup.layer_index, lookup.rows, lookup.out, state.missed);
  state.settled = state.missed.empty();
  if (state.settled) return;
  state.partial = state.missed.size() * ngram_rows < lookup.rows.size();
  if (!state.partial) {
    asked.push_back(lookup);
    return;
  }
  state.rows.clear();
  for (const uint32_t ngram : state.missed) {
    const std::span<const uint64_t> ids = lookup.rows.subspan(ngram * ngram_rows, ngram_rows);
    state.rows.insert(state.rows.end(), ids.begin(), ids.end());
  }
  const size_t bytes = state.missed.size() * cache.ngram_bytes();
  if (state.bytes.size() < bytes) state.bytes.resize(bytes);
  asked.push_back(
      {lookup.layer_index, state.rows, std::span(state.bytes).first(bytes), lookup.deadline});
}

// The layer's rows have arrived: puts them in their places and into the cache.
void CachedSource::Step::Settle(LayerState& state) {
  NgramCache& cache = *core->cache;
  state.settled = true;
  if (!state.cacheable) return;
  const uint32_t layer_index = state.lookup.layer_index;
  if (!state.partial) {
    cache.Insert(layer_index, state.lookup.rows, state.lookup.out);
    return;
  }
  const size_t ngram_bytes = cache.ngram_bytes();
  const std::byte* from = state.bytes.data();
  for (const uint32_t ngram : state.missed) {
    std::memcpy(state.lookup.out.data() + ngram * ngram_bytes, from, ngram_bytes);
    from += ngram_bytes;
  }
  cache.Insert(layer_index, state.rows,
               std::span(state.bytes).first(state.missed.size() * ngram_bytes));
}

Result<std::unique_ptr<CachedSource>> CachedSource::Make(std::unique_ptr<RowSource> inner,
                                                         const table::TableLayout& layout,
                                                         const NgramCacheOptions& options) {
  auto core = std::make_shared<Core>();
  ASSIGN_OR_RETURN(core->cache, NgramCache::Make(layout, options));
  core->layer_count = layout.layers.size();
  core->row_bytes = layout.row_format.row_bytes();
  return std::unique_ptr<CachedSource>(new CachedSource(std::move(inner), std::move(core)));
}

CachedSource::CachedSource(std::unique_ptr<RowSource> inner, std::shared_ptr<Core> core)
    : inner_(std::move(inner)), core_(std::move(core)) {}

CachedSource::~CachedSource() = default;

Result<std::unique_ptr<Ticket>> CachedSource::Submit(std::span<const LayerLookup> layers,
                                                     const SubmitOptions& options) {
  if (!core_->WellFormed(layers)) return inner_->Submit(layers, options);
  Step* const step = Core::TakeStep(core_);
  // From here on the ticket gives the step back.
  std::unique_ptr<Ticket> ticket(new (*step) CachedTicket(step));
  uint64_t rows = 0;
  for (const LayerLookup& lookup : layers) {
    step->Probe(lookup);
    rows += lookup.rows.size();
  }
  if (!step->asked.empty()) {
    ASSIGN_OR_RETURN(step->inner, inner_->Submit(step->asked, options));
  }
  core_->rows_asked.fetch_add(rows, std::memory_order_relaxed);
  return ticket;
}

SourceStats CachedSource::stats() const {
  SourceStats stats = inner_->stats();
  const uint64_t fetched = stats.rows_asked;
  stats.rows_asked = core_->rows_asked.load();
  stats.rows_cached = stats.rows_asked - std::min(stats.rows_asked, fetched);
  return stats;
}

CacheStats CachedSource::cache_stats() const { return core_->cache->stats(); }

}  // namespace engram::client
