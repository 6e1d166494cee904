// What is done to single Ethernet frames on their way.
#pragma once

#include <cstddef>
#include <span>

#include "common/base/rng.h"

namespace engram::chaos {

// Changes one byte that TCP carries over IPv4 and makes its checksum right again, so that only the
// programs themselves can notice. False: the frame carries none, and is as it was.
bool FlipCarriedByte(std::span<std::byte> frame, Rng& rng);

}  // namespace engram::chaos
