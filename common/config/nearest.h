// The known name closest to a mistyped one, for error messages.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace engram::config {

// Smallest Levenshtein distance; ties to the earlier candidate. Empty when there are no candidates.
std::string_view Nearest(std::string_view name, std::span<const std::string> candidates);

}  // namespace engram::config
