// What the machine takes away: each core reads the clock as fast as it can, and every gap is time
// the core was not ours. Latency tails measured on the same cores cannot be better than these.
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::array<double, 4> kBoundsUs = {50, 200, 1000, 10000};

struct Gaps {
  std::array<int, kBoundsUs.size()> count = {};  // longer than each bound
  double lost_us = 0;
  double longest_us = 0;
};

Gaps Watch(int cpu, double seconds) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  sched_setaffinity(0, sizeof(set), &set);
  Gaps gaps;
  const auto end = SteadyClock::now() + std::chrono::duration<double>(seconds);
  auto last = SteadyClock::now();
  while (last < end) {
    const auto now = SteadyClock::now();
    const double us = std::chrono::duration<double, std::micro>(now - last).count();
    last = now;
    if (us < kBoundsUs[0]) continue;
    gaps.lost_us += us;
    gaps.longest_us = std::max(gaps.longest_us, us);
    for (size_t i = 0; i < kBoundsUs.size(); ++i) gaps.count[i] += us > kBoundsUs[i] ? 1 : 0;
  }
  return gaps;
}

}  // namespace

// machine_gaps [SECONDS]
int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::clamp(std::atof(argv[1]), 0.1, 600.0) : 5.0;
  const unsigned cpus = std::max(1u, std::thread::hardware_concurrency());
  std::vector<Gaps> gaps(cpus);
  std::vector<std::thread> threads;
  for (unsigned cpu = 0; cpu < cpus; ++cpu) {
    threads.emplace_back([&, cpu] { gaps[cpu] = Watch(static_cast<int>(cpu), seconds); });
  }
  for (std::thread& thread : threads) thread.join();
  fmt::print("gaps in {} s of reading the clock on every core\n", seconds);
  for (unsigned cpu = 0; cpu < cpus; ++cpu) {
    const Gaps& g = gaps[cpu];
    fmt::print(
        "cpu {:2}  lost {:.2f} %   > 50 us {}   > 200 us {}   > 1 ms {}   > 10 ms {}   longest "
        "{:.0f} us\n",
        cpu, g.lost_us / seconds / 1e4, g.count[0], g.count[1], g.count[2], g.count[3],
        g.longest_us);
  }
  return 0;
}
