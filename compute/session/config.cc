#include "compute/session/config.h"

#include "kernels/pool.h"

namespace engram::compute {

void ApiConfig::Describe(config::Fields& fields) {
  fields.Add("api.listen", &listen, "host:port of the HTTP API; port 0 picks one");
  fields.Add("api.model_name", &model_name,
             "what clients call the model; empty: model.name, or the folder's name");
  fields.Add("api.chat_template", &chat_template,
             "deepseek (its markers around messages) or raw (the client renders)");
  fields.Add("api.key_file", &key_file,
             "file with the key clients must send; empty: every client that reaches the port may "
             "use it");
  fields.Add(
      "api.connections", &connections, 1, 65536,
      "open at once, at most a quarter of the descriptors; beyond it one that waits is closed, "
      "else the newest refused");
  fields.Add("api.body_mib", &body_mib, 1, 1024, "of one request");
  fields.Add("api.prompts_max", &prompts_max, 1, 4096, "of one request to /v1/completions");
  fields.Add("api.allow_unknown_fields", &allow_unknown_fields,
             "true: unknown fields of requests are ignored, logged once; false: refused by name");
  fields.Add("api.unsent_kib", &unsent_kib, 1, 1 << 20,
             "of a stream its client does not read; beyond it the request is cancelled");
  fields.Add("api.idle_timeout_s", &idle_timeout_s, 1, 86'400,
             "to send a request, and to take any part of an answer");
  fields.Add("api.request_timeout_s", &request_timeout_s, 1, 86'400,
             "of a request, from its arrival to its last token");
  fields.Add("api.keep_alive_ms", &keep_alive_ms, 10, 3'600'000,
             "between comments in a stream that has nothing to say");
  fields.Add("api.drain_timeout_s", &drain_timeout_s, 0, 86'400,
             "to finish requests after SIGTERM before they are aborted");
}

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
  fields.Add("engine.threads", &threads, 0, kernels::Pool::kThreadsMax,
             "threads of the matrix products; 0: one a processor that this process may use, "
             "shared between the ranks");
  fields.Add("engine.rank_timeout_ms", &rank_timeout_ms, 100, 3'600'000,
             "how long a rank under mpirun waits for the others within a step");
  fields.Add("engine.deadline_ms", &deadline_ms, 1, 3'600'000,
             "for the rows of one step, from asking for them");
  fields.Add("cache.mib", &cache_mib, 0, 1 << 24,
             "memory of the latent cache: running requests and prompt beginnings to be met again; "
             "0: for engine.sequences_max of the longest requests, at most a quarter of what is "
             "left beside the weights");
  fields.Add(
      "cache.page_positions", &page_positions, 1, 4096,
      "positions a page; answers do not depend on it; a prompt's beginning is found again in whole "
      "pages");
  fields.Add("cache.dtype", &cache_dtype,
             "fp32, or bf16: half the memory and reads, entries rounded to 2^-9, other answers");
  fields.Add("engram.verify", &verify,
             "hash again when rows are used and compare with what was fetched");
  fields.Add(
      "engram.on_missing", &on_missing,
      "when rows do not come: fail (the request ends) or degrade (gates closed, and said so)");
  fields.Add("engram.content_digest", &content_digest,
             "the memory nodes' tables must have it (engramctl digest); empty: that of "
             "engram_content_digest.txt beside the model, if there is one");
  api.Describe(fields);
  lookup.Describe(fields);
  fields.Add("log.level", &log_level, "trace, debug, info, warn, error or off");
}

}  // namespace engram::compute
