// One run against one row source: steps go out when they are due, whatever the source does, and
// what comes back is timed from the moment it was due. One thread does everything: send, poll,
// verify while there is nothing else to do.
#pragma once

#include <atomic>
#include <functional>

#include "common/base/clock.h"
#include "memnode/load/figures.h"
#include "memnode/load/id_pool.h"

namespace engram::memnode::load {

// What a run needs of the machine; tests replace it.
struct Host {
  const Clock* clock = &Clock::Real();
  // How often the system took this thread's core away so far.
  std::function<uint64_t()> preemptions;
  std::function<void(Nanos)> sleep;
  std::function<double()> cpu_seconds;                  // of this process so far
  const std::atomic<bool>* stop = nullptr;              // set: the run ends early, with a report
  std::function<void(const SecondFigures&)> on_second;  // must not block; may be null
};
Host RealHost();

struct RunParts {
  const table::TableLayout* layout = nullptr;
  const IdPool* pool = nullptr;
  client::RowSource* service = nullptr;
  const RowReference* reference = nullptr;  // null: nothing is verified
};

// A closed loop ends at the first error; an open one counts them. INVALID_ARGUMENT when steps that
// large, or verifying without a reference, cannot be had.
Result<RunFigures> RunLoad(const RunSettings& settings, const RunParts& parts, const Host& host);

}  // namespace engram::memnode::load
