// One model, ready to answer: checkpoint, weights, rows, engine, opened in order and closed in
// reverse.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/safetensors.h"
#include "common/client/row_source.h"
#include "compute/engine/serving_engine.h"
#include "compute/memory/tables_info.h"
#include "compute/session/config.h"

namespace engram::compute {

// engine.threads, or what it comes to when it is 0.
int ThreadsOf(const ComputeConfig& config, const parallel::Collective& ranks);

class Session {
 public:
  // Every error names what was opened and what to do about it. With several ranks this is rank 0,
  // and one session a process.
  static Result<std::unique_ptr<Session>> Open(const ComputeConfig& config,
                                               parallel::Collective& ranks = parallel::Solo());
  // Of another rank: opens its part of the model and computes with rank 0 until that ends.
  static Status RunFollower(const ComputeConfig& config, parallel::Collective& ranks);
  ~Session();

  CompletionEngine& completions() { return *engine_; }
  const CompletionEngine& completions() const { return *engine_; }
  const ModelConfig& model() const { return model_; }
  const TablesInfo& tables() const { return tables_info_; }
  int64_t decode_bytes() const { return DecodeBytes(weights_, model_); }
  int64_t cache_bytes_a_position() const {
    return pages_->shape().layers * pages_->shape().entry_bytes();
  }

 private:
  explicit Session(parallel::Collective& ranks) : ranks_(ranks) {}
  Status OpenModel(const ComputeConfig& config);
  Status OpenRows(const ComputeConfig& config);
  Status OpenTransformer(const ComputeConfig& config);
  Result<int64_t> CacheMib(const ComputeConfig& config, const PageShape& shape);
  Status OpenEngine(const ComputeConfig& config);

  parallel::Collective& ranks_;
  ModelConfig model_;
  std::unique_ptr<io::Checkpoint> checkpoint_;
  Weights weights_;
  client::ModelTables tables_;  // empty when the model has no Engram layers
  TablesInfo tables_info_;
  std::unique_ptr<client::RowSource> source_;
  std::unique_ptr<kernels::Pool> pool_;
  std::unique_ptr<Prefetcher> prefetcher_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<PagePool> pages_;
  std::unique_ptr<ServingEngine> engine_;
};

}  // namespace engram::compute
