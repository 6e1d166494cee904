// The stores compared, started and filled one after the other.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "tests/bench/harness/machine.h"
#include "tests/bench/harness/rounds.h"
#include "tests/bench/harness/tables.h"

namespace engram::bench {

inline constexpr char kOurs[] = "engram";

struct Contestant {
  std::string name;
  std::string version;
  std::string settings;
  std::string skipped;          // not empty: why it has no figures
  double bytes_per_row = 0;     // of memory; RocksDB: on disk
  size_t depth_max = SIZE_MAX;  // 1 where there is no server to keep busy
  // A reader of `depth` batches at a time; one reader at work at any time.
  std::function<Result<std::unique_ptr<BatchReader>>(size_t depth)> make_reader;
  std::shared_ptr<void> alive;  // whatever must live while it is read: servers, clients
};

// All that `only` names (empty: all), ours first. An installed server that does not start is an
// error; one that is not installed is skipped.
Result<std::vector<Contestant>> StartContestants(const Tables& tables, const Cores& cores,
                                                 const std::vector<std::string>& only,
                                                 const std::string& transport,
                                                 const std::string& work_dir);

}  // namespace engram::bench
