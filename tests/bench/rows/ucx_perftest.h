// ucx_perftest's active messages over TCP loopback at a batch's size: what UCX moves when nothing
// is gathered, checked or answered. The program of Debian's ucx-utils, run once a round.
#pragma once

#include <string>

#include "common/base/status.h"
#include "tests/bench/harness/machine.h"
#include "tests/bench/harness/rounds.h"

namespace engram::bench {

class UcxPerftest {
 public:
  // "" or why there are no figures.
  static std::string Missing();
  static std::string Settings();

  UcxPerftest(size_t message_bytes, size_t rows, const Cores& cores, std::string work_dir)
      : message_bytes_(message_bytes), rows_(rows), cores_(cores), work_dir_(std::move(work_dir)) {}
  // About as long as asked: the program counts messages, not time.
  Result<Round> Run(double seconds);

 private:
  const size_t message_bytes_;
  const size_t rows_;
  const Cores cores_;
  const std::string work_dir_;
  double messages_per_s_ = 5000;  // of the run before; a guess at first
  int runs_ = 0;
};

}  // namespace engram::bench
