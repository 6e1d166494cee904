// The reference vectors in tests/golden, as values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/io/json.h"
#include "common/table/layout.h"

namespace engram::table {

json::object ReadGolden(const std::string& name);

// A list of numbers or decimal strings, nested to any depth, flattened in order.
std::vector<int64_t> Flatten(const json::value& value);

// A vector file of the published hash code: its config, its layout, its answers.
struct HashGolden {
  explicit HashGolden(const std::string& name);

  EngramConfig config;
  TableLayout layout;  // computed from the config by the code under test
  json::object object;
  std::vector<std::vector<int64_t>> sequences;  // compressed ids

  // A member that is keyed by layer id.
  const json::value& OfLayer(std::string_view member, int layer_id) const;
};

}  // namespace engram::table
