// A whole file in memory, for the small files of a model folder.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/status.h"

namespace engram::io {

// NOT_FOUND without such a file, INVALID_ARGUMENT for a folder and for more than `bytes_max`. Of a
// pipe, as a shell makes one, what is written to it; one that stays silent is an error, not a hang.
Result<std::string> ReadFile(const std::string& path, uint64_t bytes_max,
                             int silence_max_ms = 10'000);

// Whether the folder has an entry of that name: also a symbolic link to nothing, which is a file
// that is missing, not one that is not meant to be there.
bool HasEntry(const std::string& path);

}  // namespace engram::io
