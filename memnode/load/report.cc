#include "memnode/load/report.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "common/io/json.h"

namespace engram::memnode::load {
namespace {

double PerSecond(uint64_t count, const LoadResult& result) {
  return result.seconds > 0 ? static_cast<double>(count) / result.seconds : 0;
}

double QuantileUs(const LoadResult& result, double q) {
  return static_cast<double>(result.step_latency.QuantileNs(q)) / 1e3;
}

}  // namespace

std::string TextReport(const LoadResult& result) {
  std::string text = fmt::format(
      "rows/s {:.2f} M   distinct rows/s {:.2f} M   {:.2f} GB/s   steps/s {:.0f}   over {:.1f} s\n",
      PerSecond(result.rows, result) / 1e6, PerSecond(result.distinct_rows, result) / 1e6,
      PerSecond(result.bytes, result) / 1e9, PerSecond(result.steps, result), result.seconds);
  text += fmt::format(
      "step latency us   p50 {:.0f}   p90 {:.0f}   p99 {:.0f}   p99.9 {:.0f}   max {:.0f}\n",
      QuantileUs(result, 0.5), QuantileUs(result, 0.9), QuantileUs(result, 0.99),
      QuantileUs(result, 0.999), QuantileUs(result, 1.0));
  text += fmt::format("verified rows {}   wrong rows {}   errors {}\n", result.verified_rows,
                      result.wrong_rows, result.errors);
  return text;
}

Status WriteJsonReport(const LoadResult& result, const std::string& path) {
  const json::value report = {
      {"rows_per_s", PerSecond(result.rows, result)},
      {"distinct_rows_per_s", PerSecond(result.distinct_rows, result)},
      {"bytes_per_s", PerSecond(result.bytes, result)},
      {"steps_per_s", PerSecond(result.steps, result)},
      {"step_latency_us",
       {{"p50", QuantileUs(result, 0.5)},
        {"p90", QuantileUs(result, 0.9)},
        {"p99", QuantileUs(result, 0.99)},
        {"p999", QuantileUs(result, 0.999)},
        {"max", QuantileUs(result, 1.0)}}},
      {"errors", result.errors},
      {"verified_rows", result.verified_rows},
      {"wrong_rows", result.wrong_rows},
      {"path", "gather"},
  };
  std::ofstream out(path);
  out << json::serialize(report) << "\n";
  if (!out.flush())
    return InternalError(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
  return OkStatus();
}

}  // namespace engram::memnode::load
