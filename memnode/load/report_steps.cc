#include "memnode/load/report_steps.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>

namespace engram::memnode::load {

Status WriteSteps(const RunFigures& figures, const std::string& path) {
  std::ofstream out(path);
  out << "due_ns,latency_ns,outcome,wrong_rows\n";
  for (const StepFigures& step : figures.step_list) {
    out << fmt::format("{},{},{},{}\n", step.due.time_since_epoch().count(), step.latency.count(),
                       CodeName(step.code), step.wrong_rows);
  }
  if (out.flush()) return OkStatus();
  return InternalError(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
}

}  // namespace engram::memnode::load
