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
  int64_t prefill_chunk = 256;
  int64_t threads = 1;
  int64_t deadline_ms = 2000;
  bool verify = false;
  client::LookupConfig lookup;
  std::string log_level = "warn";

  void Describe(config::Fields& fields);
};

}  // namespace engram::compute
