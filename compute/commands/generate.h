// engram-compute generate: one prompt, its completion on stdout, a short report on stderr.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/status.h"
#include "compute/parallel/collective.h"
#include "compute/session/config.h"

namespace engram::compute {

struct GenerateOptions {
  std::string prompt;
  std::string prompt_file;  // used instead of `prompt` when given
  int64_t tokens_max = 64;
  double temperature = 0;
  uint64_t seed = 0;
  bool ignore_eos = false;
  std::string json_file;  // all figures, for scripts; empty: none
};

Status RunGenerate(const ComputeConfig& config, const GenerateOptions& options,
                   parallel::Collective& ranks = parallel::Solo());

}  // namespace engram::compute
