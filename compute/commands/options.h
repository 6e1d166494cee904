// The command-line options every command shares, and how they combine with the configuration: file,
// then --set, then the options themselves.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "compute/session/config.h"

namespace engram::compute {

struct CommonOptions {
  std::string model;
  std::optional<std::string> memnodes;  // comma separated; one at least where given
  bool local = false;
  std::string config_file;
  std::vector<std::string> sets;

  void AddTo(CLI::App& app);
  // INVALID_ARGUMENT when no model is named, when --memnodes names no node, or when both --local
  // and memory nodes are given.
  Result<ComputeConfig> Resolve() const;
};

}  // namespace engram::compute
