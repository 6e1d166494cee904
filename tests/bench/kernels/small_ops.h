// Every operation that is no matrix product, counted in bytes read and written, to stand beside a
// copy.
#pragma once

#include <vector>

#include "tests/bench/harness/rounds.h"

namespace engram::bench {

// One leg an operation, named after it; values are of a prompt of 256 tokens, 2,048 wide, four
// streams. Results are discarded.
std::vector<Leg> SmallOpLegs();

}  // namespace engram::bench
