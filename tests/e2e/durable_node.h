// One memory node on one store folder, for tests of what survives: started and killed as a process,
// its store looked into between two runs, its rows compared with the model folder's.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"
#include "tests/support/process.h"

namespace engram::testing_support {

inline constexpr char kTables[] = "tables";  // the model's name in every store

// A folder laid out as DeepSeek-V4.1's tables, about 13 MiB of rows: a table set of two files.
std::string MakeTables(const std::string& work_dir, int seed);

class DurableNode {
 public:
  DurableNode(std::string work_dir, std::string store)
      : work_dir_(std::move(work_dir)), store_(std::move(store)) {}

  // Settings for every start: "a.b=value".
  void Set(const std::string& setting) { settings_.push_back(setting); }
  // To import a folder where that is missing; empty: to serve what the store has published.
  Process& Start(const std::string& model_dir, const std::string& version = "1");
  // Start, and wait until it is ready; false when it ends or takes too long.
  bool StartReady(const std::string& model_dir, const std::string& version = "1");
  void Kill();  // SIGKILL, and gone
  void Stop();  // as an operator would; expects a clean exit
  Process& process() { return *process_; }
  const std::string& control() const { return control_; }
  const std::string& store() const { return store_; }
  // What the node told when it ended by itself with an error: the last line of stderr.
  std::string Error();

  // A request of engramctl's kind; fails when the node is gone.
  Result<json::object> Call(const json::object& request) const;
  // Starts a job and waits for its end.
  Result<json::object> Job(const json::object& request) const;

 private:
  const std::string work_dir_;
  const std::string store_;
  std::vector<std::string> settings_;
  std::string control_;
  std::unique_ptr<Process> process_;
};

// What a store that no process has open holds: version -> content digest of each complete table
// set. DATA_LOSS when one of them is not what its digests say.
Result<std::map<std::string, std::string>> CompleteVersions(const std::string& store);

// Compares `count` random rows of each layer, asked for over the wire, with the folder.
Status CompareServedRows(const std::string& control, const std::string& model_dir,
                         const std::string& version, int count, uint64_t seed);

// The files that hold pages, not records.
std::vector<std::string> PageFiles(const std::string& store);
void FlipBit(const std::string& path, uint64_t offset);

// Points in time spread over [0, span): one at random in each of `count` equal parts, in random
// order.
std::vector<std::chrono::microseconds> SpreadPoints(std::chrono::microseconds span, int count,
                                                    uint64_t seed);

}  // namespace engram::testing_support
