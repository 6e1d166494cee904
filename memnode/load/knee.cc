#include "memnode/load/knee.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace engram::memnode::load {

Probe JudgeProbe(double steps_per_s, double p99_us, RunFigures figures) {
  Probe probe;
  probe.steps_per_s = steps_per_s;
  if (const uint64_t errors = figures.errors + figures.warm_up_errors; errors > 0) {
    probe.why_not = fmt::format("{} errors", errors);
  } else if (!RefusalOf(figures).empty()) {
    probe.why_not = "the tester could not keep its schedule";
  } else if (figures.step_latency.total() == 0) {
    probe.why_not = "no step";
  } else if (figures.latency_us(0.99) > p99_us) {
    probe.why_not = fmt::format("p99 {:.0f} us", figures.latency_us(0.99));
  }
  probe.held = probe.why_not.empty();
  probe.figures = std::move(figures);
  return probe;
}

Result<Knee> FindKnee(const KneeOptions& options,
                      const std::function<Result<RunFigures>(double steps_per_s)>& run,
                      const std::function<void(const Probe&)>& on_probe) {
  Knee knee;
  const auto probe_at = [&](double rate) -> Result<bool> {
    ASSIGN_OR_RETURN(RunFigures figures, run(rate));
    const bool interrupted = figures.interrupted;
    knee.probes.push_back(JudgeProbe(rate, options.p99_us, std::move(figures)));
    const Probe& probe = knee.probes.back();
    if (on_probe) on_probe(probe);
    if (interrupted) return Cancelled("interrupted while looking for the knee");
    if (probe.held) knee.best = static_cast<int>(knee.probes.size()) - 1;
    return probe.held;
  };
  double low = options.low_steps_per_s;
  double high = options.high_steps_per_s;
  ASSIGN_OR_RETURN(const bool low_holds, probe_at(low));
  if (!low_holds) return knee;
  ASSIGN_OR_RETURN(knee.at_upper_bound, probe_at(high));
  if (knee.at_upper_bound) return knee;
  while (static_cast<int64_t>(knee.probes.size()) < options.probes_max &&
         high / low > 1 + options.resolution) {
    const double middle = std::sqrt(low * high);
    ASSIGN_OR_RETURN(const bool holds, probe_at(middle));
    (holds ? low : high) = middle;
  }
  return knee;
}

}  // namespace engram::memnode::load
