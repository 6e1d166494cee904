// Damage in the memory of a running process.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>

namespace engram::testing_support {

// Flips a bit of these bytes wherever the process has them in memory it may write; returns how
// often. -1: this process may not look.
int FlipInMemoryOf(pid_t pid, std::span<const std::byte> wanted);

}  // namespace engram::testing_support
