// CachedSource: any RowSource behind an n-gram cache. A layer's rows come position after position,
// order after order, so K = heads_per_order consecutive ids are one n-gram: those the cache has are
// copied at once, and the inner source is asked for the others only.
#pragma once

#include <memory>
#include <span>

#include "common/client/ngram_cache.h"
#include "common/client/row_source.h"

namespace engram::client {

class CachedSource : public RowSource {
 public:
  // Errors as NgramCache::Make; `layout` is the inner source's.
  static Result<std::unique_ptr<CachedSource>> Make(std::unique_ptr<RowSource> inner,
                                                    const table::TableLayout& layout,
                                                    const NgramCacheOptions& options);
  ~CachedSource() override;

  const table::TableIdentity& identity() const override { return inner_->identity(); }
  // Errors and threads as the inner source; an error may leave rows the cache had in `out`.
  // Lists that are not whole n-grams are handed on as they are. A layer that fails leaves nothing
  // in the cache. Tickets may outlive this when the inner source's may.
  Result<Ticket> Submit(std::span<const LayerLookup> layers, const SubmitOptions& options) override;
  // The inner source's, except that rows_asked has the cache's rows too. rows_distinct and the
  // nodes have only what the inner source was asked for.
  SourceStats stats() const override;
  CacheStats cache_stats() const;
  RowSource& inner() { return *inner_; }

 private:
  struct Core;
  struct Step;
  CachedSource(std::unique_ptr<RowSource> inner, std::shared_ptr<Core> core);

  const std::unique_ptr<RowSource> inner_;
  const std::shared_ptr<Core> core_;  // shared with the tickets
};

}  // namespace engram::client
