#include "common/base/clock.h"

namespace engram {
namespace {

class RealClock : public Clock {
 public:
  TimePoint Now() const override { return std::chrono::steady_clock::now(); }
};

}  // namespace

const Clock& Clock::Real() {
  static const RealClock& clock = *new RealClock;  // never destroyed: the log is flushed at exit
  return clock;
}

}  // namespace engram
