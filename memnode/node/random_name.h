// A name that no other process can guess and that is never given twice: of jobs, of one run of a
// node, of a tool's reservation.
#pragma once

#include <string>

namespace engram::memnode {

// 32 hexadecimal digits from the kernel's random generator. Any thread.
std::string RandomName();

}  // namespace engram::memnode
