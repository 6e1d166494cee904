// A cluster's status as people and as scripts read it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/io/json.h"
#include "memnode/ctl/status/cluster_view.h"
#include "memnode/ctl/status/problems.h"

namespace engram::ctl {

// One line for each member and then the problems, in at most 100 columns. `when` is the time of the
// look.
std::string StatusTable(const ClusterView& view, const std::vector<Problem>& problems,
                        std::string_view when);

// {"time", "healthy": no problem needs a person, "members": [...], "missing": names that members
// list and none that answered has, "problems": [{"kind", "members", "what", "remedy",
// "needs_person"}]}. Of a member that gave no status all but "name", "address",
// "state" and "error" is null. 64-bit numbers are decimal strings.
json::object StatusJson(const ClusterView& view, const std::vector<Problem>& problems,
                        std::string_view when);

size_t CountForPersons(const std::vector<Problem>& problems);

}  // namespace engram::ctl
