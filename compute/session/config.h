// Settings of engram-compute; configs/compute.yaml mirrors them.
#pragma once

#include <cstdint>
#include <string>

#include "common/client/lookup/config.h"
#include "common/config/config.h"

namespace engram::compute {

// Of `engram-compute serve`.
struct ApiConfig {
  std::string listen = "127.0.0.1:8000";
  std::string model_name;  // empty: model.name, or the folder's name
  std::string chat_template = "deepseek";
  std::string key_file;
  int64_t connections = 512;
  int64_t body_mib = 8;
  int64_t prompts_max = 64;
  bool allow_unknown_fields = false;
  int64_t unsent_kib = 1024;
  int64_t idle_timeout_s = 60;
  int64_t request_timeout_s = 600;
  int64_t keep_alive_ms = 10'000;
  int64_t drain_timeout_s = 30;

  void Describe(config::Fields& fields);
};

struct ComputeConfig {
  // Rows are asked for ahead of time, so polling for them only takes cores from other threads. Two
  // memory nodes on the same two cores: exposed wait 0.69 % of step time with 50 us of polling,
  // 0.22 % without.
  ComputeConfig() { lookup.spin_us = 0; }

  std::string model_path;
  std::string model_name;     // empty: the folder's name
  std::string model_version;  // empty: any
  int64_t step_tokens = 512;
  int64_t prefill_chunk = 256;
  int64_t sequences_max = 16;
  int64_t queue_max = 256;
  int64_t threads = 0;  // 0: ThreadsOf (session.h)
  int64_t rank_timeout_ms = 30'000;
  int64_t deadline_ms = 2000;
  int64_t cache_mib = 0;  // 0: by the memory there is (session.cc)
  int64_t page_positions = 32;
  std::string cache_dtype = "fp32";
  bool verify = false;
  std::string on_missing = "fail";
  std::string content_digest;  // empty: the file's beside the model, if there is one
  client::LookupConfig lookup;
  ApiConfig api;
  std::string log_level = "warn";

  void Describe(config::Fields& fields);
};

}  // namespace engram::compute
