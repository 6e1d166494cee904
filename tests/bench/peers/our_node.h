// Our side of the comparison: engram-memnode in a process of its own on the server's core, serving
// procedural rows over TCP, and a lookup client.
#pragma once

#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/client/lookup/client.h"
#include "tests/bench/harness/machine.h"
#include "tests/bench/harness/rounds.h"
#include "tests/bench/harness/tables.h"
#include "tests/support/process.h"

namespace engram::bench {

class OurNode {
 public:
  // NOT_FOUND when engram-memnode does not lie beside this program; UNAVAILABLE quotes what it said
  // before it ended.
  static Result<std::unique_ptr<OurNode>> Start(const Tables& tables, const Cores& cores,
                                                const std::string& transport,
                                                const std::string& work_dir);
  // Of the whole process: rows and everything else.
  uint64_t memory_bytes() const { return memory_bytes_; }
  const std::string& settings() const { return settings_; }
  // One reader at work at any time.
  std::unique_ptr<BatchReader> MakeReader(size_t depth);

 private:
  OurNode() = default;

  std::unique_ptr<testing_support::Process> process_;
  std::unique_ptr<client::LookupClient> client_;
  std::string settings_;
  uint64_t memory_bytes_ = 0;
};

}  // namespace engram::bench
