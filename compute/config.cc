#include "compute/config.h"

#include "kernels/pool.h"

namespace engram::compute {

void ComputeConfig::Describe(config::Fields& fields) {
  fields.Add("model.path", &model_path, "folder of the checkpoint");
  fields.Add("model.name", &model_name, "name of the table set; empty: the folder's name");
  fields.Add("model.version", &model_version,
             "version of the table set; empty: whatever the memory nodes serve");
  fields.Add("engine.prefill_chunk", &prefill_chunk, 1, 1 << 20, "prompt tokens computed at once");
  fields.Add("engine.threads", &threads, 1, kernels::Pool::kThreadsMax,
             "threads of the matrix products");
  fields.Add("engine.deadline_ms", &deadline_ms, 1, 3'600'000,
             "for the rows of one step, from asking for them");
  fields.Add("engram.verify", &verify,
             "hash again when rows are used and compare with what was fetched");
  lookup.Describe(fields);
  fields.Add("log.level", &log_level, "trace, debug, info, warn, error or off");
}

}  // namespace engram::compute
