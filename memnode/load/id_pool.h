// The row ids of many steps, made before the clock runs, so that no figure depends on how fast ids
// can be made. A run that needs more steps goes round.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "memnode/load/step_makers.h"

namespace engram::memnode::load {

class IdPool {
 public:
  // As many steps as `pool_mib` holds, at most `steps_max` and one cycle of the maker, at least
  // one. Also written to `record_file` unless that is empty.
  static Result<IdPool> Make(StepMaker& maker, const table::TableLayout& layout,
                             const StepShape& shape, int64_t pool_mib, uint64_t steps_max,
                             const std::string& record_file);

  const StepShape& shape() const { return shape_; }
  size_t step_count() const { return step_count_; }
  size_t layer_count() const { return layer_count_; }
  size_t rows_per_layer() const { return rows_per_layer_; }  // of one step
  size_t rows_per_step() const { return rows_per_layer_ * layer_count_; }
  size_t size_bytes() const { return rows_.size() * sizeof(uint64_t); }
  // Step `index` of a run, any number.
  std::span<const uint64_t> Rows(uint64_t index, size_t layer) const {
    const size_t list = (index % step_count_) * layer_count_ + layer;
    return std::span(rows_).subspan(list * rows_per_layer_, rows_per_layer_);
  }

 private:
  StepShape shape_;
  size_t step_count_ = 0;
  size_t layer_count_ = 0;
  size_t rows_per_layer_ = 0;
  std::vector<uint64_t> rows_;  // [steps][layers][rows_per_layer]
};

}  // namespace engram::memnode::load
