#include "memnode/load/id_pool.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "memnode/load/trace.h"

namespace engram::memnode::load {

Result<IdPool> IdPool::Make(StepMaker& maker, const table::TableLayout& layout,
                            const StepShape& shape, int64_t pool_mib, uint64_t steps_max,
                            const std::string& record_file) {
  IdPool pool;
  pool.shape_ = shape;
  pool.layer_count_ = layout.layers.size();
  pool.rows_per_layer_ = shape.positions() * static_cast<size_t>(layout.rows_per_position());
  const uint64_t fitting = (static_cast<uint64_t>(pool_mib) << 20) / sizeof(uint64_t) /
                           std::max<size_t>(1, pool.rows_per_step());
  uint64_t steps = std::min(fitting, steps_max);
  if (maker.cycle() > 0) steps = std::min<uint64_t>(steps, maker.cycle());
  pool.step_count_ = std::max<uint64_t>(1, steps);
  pool.rows_.resize(pool.step_count_ * pool.rows_per_step());

  std::optional<TraceWriter> recorder;
  std::vector<std::span<uint64_t>> layers(pool.layer_count_);
  for (size_t step = 0; step < pool.step_count_; ++step) {
    for (size_t i = 0; i < pool.layer_count_; ++i) {
      layers[i] =
          std::span(pool.rows_)
              .subspan((step * pool.layer_count_ + i) * pool.rows_per_layer_, pool.rows_per_layer_);
    }
    RETURN_IF_ERROR(maker.Fill(layers));
    if (record_file.empty()) continue;
    const bool tokens = !maker.tokens().empty();
    if (!recorder.has_value()) {
      ASSIGN_OR_RETURN(recorder, TraceWriter::Create(record_file, shape, tokens));
    }
    if (tokens)
      recorder->Write(maker.tokens());
    else
      recorder->Write(layers);
  }
  if (recorder.has_value()) RETURN_IF_ERROR(recorder->Close());
  return pool;
}

}  // namespace engram::memnode::load
