// How long this machine takes to wake a thread that sleeps: what a lookup costs at least, several
// times over, where nobody polls. Minutes of a virtual machine's neighbours decide it.
#pragma once

#include <vector>

namespace engram::compute {

// Microseconds of round trips to a thread that sleeps on a socket, from one that was busy for
// `busy_us` before each.
std::vector<double> WakeUpRoundTrips(int rounds, int busy_us);

}  // namespace engram::compute
