// One table and one JSON file out of a benchmark's series.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"
#include "tests/bench/harness/rounds.h"

namespace engram::bench {

// Columns as wide as their widest cell; the first is left-aligned, the others right.
std::string TableText(std::span<const std::vector<std::string>> lines);

json::object SpreadJson(const Spread& spread);
Status WriteJson(const json::value& report, const std::string& path);

}  // namespace engram::bench
