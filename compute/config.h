// Settings of engram-compute; configs/compute.yaml mirrors them.
#pragma once

#include <cstdint>
#include <string>

#include "common/client/lookup_config.h"
#include "common/config/config.h"

namespace engram::compute {

struct ComputeConfig {
  std::string model_path;
  std::string model_name;     // empty: the folder's name
  std::string model_version;  // empty: any
  int64_t step_tokens = 512;
  int64_t prefill_chunk = 256;
  int64_t sequences_max = 16;
  int64_t queue_max = 256;
  int64_t threads = 1;
  int64_t deadline_ms = 2000;
  int64_t cache_mib = 512;
  int64_t page_positions = 32;
  bool verify = false;
  std::string on_missing = "fail";
  client::LookupConfig lookup;
  std::string log_level = "warn";

  void Describe(config::Fields& fields);
};

}  // namespace engram::compute
