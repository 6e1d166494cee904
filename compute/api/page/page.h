// The page at "/": index.html, embedded when building.
#pragma once

#include <string_view>

namespace engram::compute {

std::string_view PageHtml();

}  // namespace engram::compute
