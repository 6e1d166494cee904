// What engramctl hotset says: the hit-rate curve as text, as JSON and drawn.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/io/json.h"
#include "memnode/ctl/hotset/hotset_maker.h"

namespace engram::ctl {

std::string HotsetText(const Hotset& made);
json::object HotsetJson(const Hotset& made);
// Drawn by gnuplot, with its errors.
Result<std::string> HotsetSvg(const Hotset& made);

}  // namespace engram::ctl
