#include "common/client/cached_source.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

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
  table::TableLayout layout;
  std::atomic<uint64_t> rows_asked = 0;
  std::mutex mutex;
  std::vector<std::unique_ptr<Step>> free;  // kept for their buffers

  static std::unique_ptr<Step> TakeStep(const std::shared_ptr<Core>& core);
};

// What a ticket needs, pooled, so that a lookup allocates nothing of its own.
struct CachedSource::Step : public PendingLookup {
  Status Wait(uint32_t layer_index) override;
  bool Ready(uint32_t layer_index) const override;
  Nanos took() const override { return inner.took(); }
  void Release() override;

  void Probe(const LayerLookup& lookup);
  void Settle(LayerState& state);
  const LayerState* StateOf(uint32_t layer_index) const;

  std::shared_ptr<Core> core;      // while in use; shared: a ticket may outlive its source
  std::vector<LayerState> states;  // of the first layer_count layers asked for, in their order
  size_t layer_count = 0;
  std::vector<LayerLookup> asked;  // of the inner source
  Ticket inner;                    // of nothing when the cache had everything
};

Status CachedSource::Step::Wait(uint32_t layer_index) {
  auto* const state = const_cast<LayerState*>(StateOf(layer_index));
  if (state == nullptr) return NotAskedFor(layer_index);
  if (state->settled) return OkStatus();
  RETURN_IF_ERROR(inner.Wait(layer_index));
  Settle(*state);
  return OkStatus();
}

bool CachedSource::Step::Ready(uint32_t layer_index) const {
  const LayerState* const state = StateOf(layer_index);
  return state == nullptr || state->settled || inner.Ready(layer_index);
}

// The inner ticket goes first: it writes into the step's buffers, or the caller's, until then.
void CachedSource::Step::Release() {
  inner = Ticket();
  std::unique_ptr<Step> self(this);
  const std::shared_ptr<Core> home = std::move(core);
  const std::lock_guard lock(home->mutex);
  if (home->free.size() < kStepsPooledMax) home->free.push_back(std::move(self));
}

std::unique_ptr<CachedSource::Step> CachedSource::Core::TakeStep(
    const std::shared_ptr<Core>& core) {
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
  return step;
}

const LayerState* CachedSource::Step::StateOf(uint32_t layer_index) const {
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
  core->layout = layout;
  return std::unique_ptr<CachedSource>(new CachedSource(std::move(inner), std::move(core)));
}

CachedSource::CachedSource(std::unique_ptr<RowSource> inner, std::shared_ptr<Core> core)
    : inner_(std::move(inner)), core_(std::move(core)) {}

CachedSource::~CachedSource() = default;

Result<Ticket> CachedSource::Submit(std::span<const LayerLookup> layers,
                                    const SubmitOptions& options) {
  RETURN_IF_ERROR(CheckLookups(core_->layout, layers));
  std::unique_ptr<Step> taken = Core::TakeStep(core_);
  Step* const step = taken.get();
  Ticket ticket(std::move(taken));  // gives the step back
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
