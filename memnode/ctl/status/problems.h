// What is wrong with a cluster, in words: on which member, and what to do about it.
#pragma once

#include <string>
#include <vector>

#include "memnode/ctl/status/cluster_view.h"

namespace engram::ctl {

struct Problem {
  std::string kind;                       // one word for scripts; the .cc has them
  std::vector<std::string> members = {};  // names; empty: of the whole cluster
  std::string what = {};
  std::string remedy = {};   // what to do; may be empty where time alone helps
  bool needs_person = true;  // false: it passes by itself
};

// Those that need a person first.
std::vector<Problem> FindProblems(const ClusterView& view);

}  // namespace engram::ctl
