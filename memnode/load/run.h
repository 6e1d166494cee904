// One run of engram-load: connect, load, report.
#pragma once

#include <string>
#include <vector>

#include "common/base/status.h"
#include "memnode/load/closed_loop.h"

namespace engram::memnode::load {

struct RunOptions {
  std::string model_dir;   // config.json, token map, and for verifying the table shards
  std::string model_name;  // default: the folder's name
  std::string model_version = "1";
  std::vector<std::string>
      memnodes;  // "host:port"; empty = the tables in this process, as the ceiling
  std::string net_devices = "all";
  std::string json_file;  // empty = none
  ClosedLoopOptions loop;
};

// DATA_LOSS when a row came back wrong, UNAVAILABLE or the like when a step failed; the report is
// printed all the same.
Status Run(const RunOptions& options);

}  // namespace engram::memnode::load
