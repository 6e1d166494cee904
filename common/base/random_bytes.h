// Random bytes for secrets, ids and nonces. Any thread.
#pragma once

#include <cstddef>
#include <string>

namespace engram {

// `count` bytes of the operating system's generator. Ends the process where it gives none.
std::string RandomBytes(size_t count);

}  // namespace engram
