// How long this machine takes to wake a sleeping thread: a lookup costs several wake-ups where no
// thread polls. On a virtual machine it varies by the minute with its neighbours.
#pragma once

#include <vector>

namespace engram::compute {

// Microseconds of round trips to a thread that sleeps on a socket, from one that was busy for
// `busy_us` before each.
std::vector<double> WakeUpRoundTrips(int rounds, int busy_us);

}  // namespace engram::compute
