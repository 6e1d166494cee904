// The kinds of faults, as a table. One more kind is one more row.
#pragma once

#include <functional>
#include <span>

#include "tests/chaos/lab.h"

namespace engram::chaos {

struct Fault {
  const char* name;
  // Does it to a node that is well; when it returns, the fault is there.
  std::function<void(Lab&, size_t node)> begin;
  // Takes it away; when it returns, the node is about to be well again by itself.
  std::function<void(Lab&, size_t node)> end;
};

std::span<const Fault> Faults();

}  // namespace engram::chaos
