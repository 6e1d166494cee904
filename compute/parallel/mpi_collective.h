// Ranks that are processes, started by mpirun, over MPI. The only place that includes it.
//
// MPI's own waits spin and never end; here every operation is a non-blocking one that is tested
// until a time limit, with pauses, so that a rank that waits leaves its core to others and a rank
// that stopped is noticed. (One that dies is noticed by mpirun, which ends the others.)
#pragma once

#include <memory>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "compute/parallel/collective.h"

namespace engram::parallel {

// Whether mpirun started this process as one of several ranks.
bool UnderMpi();

// Once a process. FAILED_PRECONDITION: built without MPI. Destroying it ends MPI: in peace when
// nothing failed, else by ending every rank's process.
Result<std::unique_ptr<Collective>> OpenMpi(Nanos time_limit);

// Ends this process with `exit_code` and all other ranks' with it. After OpenMpi.
[[noreturn]] void AbortMpi(int exit_code);

}  // namespace engram::parallel
