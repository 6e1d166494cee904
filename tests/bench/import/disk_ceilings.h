// What the disk gives without us: large sequential reads and writes past the page cache, by a few
// threads at once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace engram::bench {

// All write-backs done and nothing cached: by the kernel's switch, which needs root, else by asking
// for each of `files`.
void DropCaches(const std::vector<std::string>& files);

// Bytes a second over whole files. UNAVAILABLE: the disk failed.
Result<double> ReadCeiling(const std::vector<std::string>& files, int threads);

// Bytes a second into one new file, made durable within the time, and removed.
Result<double> WriteCeiling(const std::string& path, uint64_t bytes, int threads);

// Both at once, over files of about the same size: bytes read a second, until both are through.
Result<double> CopyCeiling(const std::vector<std::string>& files, const std::string& path,
                           int threads);

}  // namespace engram::bench
