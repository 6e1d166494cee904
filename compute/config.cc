#include "compute/config.h"

#include "kernels/pool.h"

namespace engram::compute {

void ComputeConfig::Describe(config::Fields& fields) {
  fields.Add("model.path", &model_path, "folder of the checkpoint");
  fields.Add("model.name", &model_name, "name of the table set; empty: the folder's name");
  fields.Add("model.version", &model_version,
             "version of the table set; empty: whatever the memory nodes serve");
  fields.Add("engine.step_tokens", &step_tokens, 1, 1 << 20,
             "tokens computed in one step, all requests together");
  fields.Add("engine.prefill_chunk", &prefill_chunk, 1, 1 << 20,
             "prompt tokens of one request computed in one step, at most");
  fields.Add("engine.sequences_max", &sequences_max, 1, 1024,
             "requests computed together, at most");
  fields.Add("engine.queue_max", &queue_max, 1, 1 << 20,
             "requests that may wait; one more is refused");
  fields.Add("engine.threads", &threads, 1, kernels::Pool::kThreadsMax,
             "threads of the matrix products");
  fields.Add("engine.deadline_ms", &deadline_ms, 1, 3'600'000,
             "for the rows of one step, from asking for them");
  fields.Add("cache.mib", &cache_mib, 1, 1 << 24,
             "memory of the latent cache: running requests and prompt beginnings to be met again");
  fields.Add("cache.page_positions", &page_positions, 1, 4096,
             "positions a page; a prompt's beginning is found again in whole pages");
  fields.Add("engram.verify", &verify,
             "hash again when rows are used and compare with what was fetched");
  fields.Add(
      "engram.on_missing", &on_missing,
      "when rows do not come: fail (the request ends) or degrade (gates closed, and said so)");
  lookup.Describe(fields);
  fields.Add("log.level", &log_level, "trace, debug, info, warn, error or off");
}

}  // namespace engram::compute
