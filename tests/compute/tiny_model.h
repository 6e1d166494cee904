// A small random model on disk and a source of made-up rows, for tests of the engine.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "common/checkpoint/safetensors.h"
#include "common/client/row_source.h"
#include "common/io/json.h"
#include "common/table/vocab_map.h"
#include "compute/engine/run_completion.h"
#include "compute/engine/serving_engine.h"

namespace engram::compute {

struct TinyOptions {
  std::string variant = "paper";  // "paper", "v41", or "" for no Engram layers
  bool fp8_wkv = false;
  DType dtype = DType::kBf16;
  bool q_lora = true;
  int streams = 2;
  bool yarn = false;
  uint64_t seed = 1;
  bool some_f32_experts = false;  // every other one
  int64_t intermediate = 48;      // width of the dense layer
  int64_t moe_intermediate = 16;  // of routed and shared experts
};

// Names a test's parameter.
inline void PrintTo(const TinyOptions& options, std::ostream* out) {
  *out << (options.variant.empty() ? "plain" : options.variant) << " " << DTypeName(options.dtype)
       << " streams " << options.streams << " seed " << options.seed;
}

json::object TinyConfig(const TinyOptions& options);

struct NamedTensor {
  std::string name;
  DType dtype = DType::kBf16;
  std::vector<uint64_t> shape;
  std::vector<std::byte> bytes;
};
// Every tensor LoadWeights asks for, random.
std::vector<NamedTensor> TinyTensors(const TinyOptions& options);
// Writes config.json, model.safetensors and engram_token_map.bin into a new folder under the test's
// temporary folder.
std::string WriteModel(const json::object& config, const std::vector<NamedTensor>& tensors);

// Row bytes = f(layer, row): small bf16 values, or fp8 with scales.
class FakeRowSource : public client::RowSource {
 public:
  explicit FakeRowSource(const table::TableLayout& layout) : layout_(layout) {}
  const table::TableIdentity& identity() const override { return identity_; }
  Result<client::Ticket> Submit(std::span<const client::LayerLookup> layers,
                                const client::SubmitOptions& options) override;
  client::SourceStats stats() const override {
    client::SourceStats stats;
    stats.rows_asked = stats.rows_distinct = rows_asked_;
    stats.nodes = nodes;
    for (const client::SourceStats::Node& node : nodes) {
      if (node.status.ok()) continue;
      stats.served = Unavailable(std::string(stats.served.message()) + node.status.message() + ";");
    }
    return stats;
  }

  static void FillRow(const table::RowFormat& format, uint32_t layer_index, uint64_t row,
                      std::span<std::byte> out);

  // Called with each event, "submit <rows>" and "wait <layer index>"; may be empty.
  std::function<void(const std::string&)> on_event;
  // What Wait answers from the n-th submit (1-based) on.
  int64_t fail_from_submit = INT64_MAX;
  // The same for every submit of more rows a layer than this.
  size_t fail_submits_above = SIZE_MAX;
  Status failure = OkStatus();
  // Refused with `failure`: a submit of more rows a layer than this.
  size_t refuse_submits_above = SIZE_MAX;
  std::vector<client::SourceStats::Node> nodes;  // as told
  int64_t submits = 0;
  bool spoil = false;  // answer with the bytes of the row before

 private:
  const table::TableLayout& layout_;
  table::TableIdentity identity_;
  std::atomic<uint64_t> rows_asked_{0};
};

struct TinyServing {
  int threads = 1;
  int64_t page_positions = 8;
  int64_t pages = 256;
  DType cache_dtype = DType::kF32;
  bool verify = true;
  bool packed = true;      // bf16 weights, as the program does
  bool truncated = false;  // the model's file, once they are
  parallel::Collective* ranks = &parallel::Solo();
  int64_t whole_below_bytes = 0;  // of ShardWeights: even the smallest are cut
  ServingOptions serving{{.step_tokens = 4096, .prefill_chunk = 16, .sequences_max = 16}, 64};
};

// A whole engine over the fake rows; of a rank other than 0, what Follow needs.
struct TinyEngine {
  explicit TinyEngine(const TinyOptions& options, const TinyServing& serving = {});
  TinyEngine(const TinyOptions& options, int64_t chunk, int threads);

  // log P(tokens[i] | tokens before), i >= 1.
  Result<std::vector<float>> Score(std::vector<int32_t> tokens);
  Result<Completion> Run(CompletionRequest request) {
    return RunCompletion(*engine, std::move(request));
  }

  ModelConfig config;
  std::unique_ptr<io::Checkpoint> checkpoint;
  Weights weights;
  table::VocabMap map;
  table::TableLayout layout;
  std::unique_ptr<FakeRowSource> source;
  std::unique_ptr<kernels::Pool> pool;
  std::unique_ptr<Prefetcher> prefetcher;
  std::unique_ptr<Transformer> transformer;
  std::unique_ptr<PagePool> pages;
  std::unique_ptr<ServingEngine> engine;
};

// A request for `count` tokens, end-of-text ignored; greedy unless there is a temperature.
CompletionRequest RequestOf(std::vector<int32_t> prompt, int64_t count, double temperature = 0,
                            uint64_t seed = 0);

std::vector<int32_t> RandomTokens(uint64_t seed, int64_t count, int64_t vocab_size);

}  // namespace engram::compute
