#include "compute/commands/wake_up.h"

#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "common/base/clock.h"
#include "common/base/threads.h"

namespace engram::compute {

std::vector<double> WakeUpRoundTrips(int rounds, int busy_us) {
  std::vector<double> microseconds;
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return microseconds;
  Result<std::thread> echo = StartThread("echo", [other = ends[1]] {
    char byte = 0;
    while (read(other, &byte, 1) == 1 && write(other, &byte, 1) == 1) {
    }
  });
  if (!echo.ok()) rounds = 0;
  const Clock& clock = Clock::Real();
  for (int i = 0; i < rounds; ++i) {
    const TimePoint busy_until = clock.Now() + std::chrono::microseconds(busy_us);
    while (clock.Now() < busy_until) {
    }
    const TimePoint start = clock.Now();
    char byte = 1;
    if (write(ends[0], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1) break;
    microseconds.push_back(static_cast<double>(Nanos(clock.Now() - start).count()) * 1e-3);
  }
  close(ends[0]);
  if (echo.ok()) echo->join();
  close(ends[1]);
  return microseconds;
}

}  // namespace engram::compute
