// One connection to the service under load, and runs on it one after the other.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/checkpoint/safetensors.h"
#include "memnode/load/load_options.h"
#include "memnode/load/runner.h"
#include "memnode/load/tables.h"

namespace engram::memnode::load {

class LoadSession {
 public:
  // Reads the tables, connects, makes the ids of options.shape. `stop` ends a run early.
  static Result<std::unique_ptr<LoadSession>> Open(const LoadOptions& options,
                                                   const std::atomic<bool>* stop);

  Result<RunFigures> Run(const RunSettings& settings);
  // From now on steps of this shape.
  Status Reshape(const StepShape& shape);
  // Steps/s the tester itself can drive, with a source that does nothing and answers at once.
  Result<double> MeasureOwnRate();

  const StepShape& shape() const { return pool_->shape(); }
  const std::vector<std::string>& paths() const {
    return paths_;
  }  // what was calibrated; may be empty

 private:
  LoadSession(const LoadOptions& options, const std::atomic<bool>* stop)
      : options_(options), stop_(stop) {}
  Status Connect();
  RunParts Parts() const;

  const LoadOptions options_;
  const std::atomic<bool>* const stop_;
  LoadTables tables_;
  std::unique_ptr<IdPool> pool_;
  std::unique_ptr<io::Checkpoint> checkpoint_;  // of an in-process service; outlives it
  std::unique_ptr<client::RowSource> service_;
  std::vector<std::string> paths_;
};

}  // namespace engram::memnode::load
