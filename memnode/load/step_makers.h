// Where the tester's row ids come from, step after step: seeded and deterministic. Runs ahead of
// the timed part (id_pool.h), so it may be slow.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "memnode/load/load_options.h"
#include "memnode/load/tables.h"

namespace engram::memnode::load {

// Row ids of one step: one span a layer, each [positions * H], position after position.
using StepRows = std::span<const std::span<uint64_t>>;

class StepMaker {
 public:
  virtual ~StepMaker() = default;
  virtual Status Fill(StepRows layers) = 0;
  // The compressed token ids of the last step, [sequences * tokens]; empty for a source that draws
  // rows without tokens.
  virtual std::span<const int64_t> tokens() const { return {}; }
  // Steps after which Fill begins again; 0: never.
  virtual size_t cycle() const { return 0; }
};

// Every row of a layer equally likely: the worst case for caches and duplicates alike.
std::unique_ptr<StepMaker> MakeUniformSteps(const table::TableLayout& layout, uint64_t seed);

// Every position draws the rank of an n-gram; the rank chooses N compressed ids, the layout's own
// hash their rows. All heads of an n-gram repeat together, in every layer, as they do in text.
std::unique_ptr<StepMaker> MakeZipfSteps(const table::TableLayout& layout, double theta,
                                         uint64_t ngrams, uint64_t seed);

// Sequences walk through a long row of compressed ids, evenly spread over it, `shape.tokens` a
// step, each with its own n-gram history; at the end they go on at the beginning. `ids` is not
// empty.
std::unique_ptr<StepMaker> MakeTokenSteps(const table::TableLayout& layout, const StepShape& shape,
                                          std::vector<int64_t> ids);

// Compressed ids of text files by the model's own tokenizer.json and token map. Errors name the
// file, or the limit of kTextBytesMax over all files.
inline constexpr uint64_t kTextBytesMax = uint64_t{256} << 20;
Result<std::vector<int64_t>> EncodeTextFiles(const LoadTables& tables,
                                             const std::vector<std::string>& files);

// The maker `options` ask for. `shape` is the trace's afterwards, for a trace.
Result<std::unique_ptr<StepMaker>> MakeSteps(const SourceOptions& options, const LoadTables& tables,
                                             StepShape* shape);

}  // namespace engram::memnode::load
