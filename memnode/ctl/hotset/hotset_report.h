// What engramctl hotset says: the hit-rate curve as text, as JSON and drawn.
#pragma once

#include <string>

#include "common/io/json.h"
#include "memnode/ctl/hotset/hotset_maker.h"

namespace engram::ctl {

std::string HotsetText(const Hotset& made);
json::object HotsetJson(const Hotset& made);
// At most the first three orders, and all of them together: what a plot can hold.
std::string HotsetSvg(const Hotset& made);

}  // namespace engram::ctl
