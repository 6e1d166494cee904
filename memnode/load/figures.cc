#include "memnode/load/figures.h"

#include <fmt/format.h>

namespace engram::memnode::load {
namespace {

double Ratio(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

double RunFigures::distinct_ratio() const {
  return Ratio(service.rows_distinct, service.rows_asked);
}

double RunFigures::wire_bytes_per_row() const {
  uint64_t bytes = 0;
  for (const client::SourceStats::Node& node : service.nodes) bytes += node.bytes_fetched;
  return Ratio(bytes, service.rows_asked);
}

double RunFigures::send_slip_ratio() const { return Ratio(steps_slipped, steps_sent); }

uint64_t RunFigures::rows_by_path(client::Path path) const {
  uint64_t count = 0;
  for (const client::SourceStats::Node& node : service.nodes) {
    count += node.rows_by_path[static_cast<size_t>(path)];
  }
  return count;
}

std::string RunFigures::path() const {
  if (service.nodes.empty()) return "in_process";
  std::string name;
  for (size_t i = 0; i < client::kPathCount; ++i) {
    const auto path = static_cast<client::Path>(i);
    if (rows_by_path(path) == 0) continue;
    name = name.empty() ? std::string(client::PathName(path)) : "mixed";
  }
  return name.empty() ? "none" : name;
}

std::string RefusalOf(const RunFigures& figures) {
  if (!figures.open_loop() || figures.send_slip_ratio() <= kSlipRatioMax) return "";
  return fmt::format(
      "{:.1f} % of the steps ({} of {}) were sent more than {} us late by the tester itself, at "
      "most {:.0f} % may be: the latencies would be its own. Give it a core to itself, lower the "
      "rate, or verify less (--verify)",
      figures.send_slip_ratio() * 100, figures.steps_slipped, figures.steps_sent,
      figures.settings.slip_tolerance.count() / 1000, kSlipRatioMax * 100);
}

std::string FailureOf(const RunFigures& figures) {
  const uint64_t failed = figures.errors + figures.warm_up_errors;
  if (failed == 0) return "";
  if (!figures.open_loop()) {
    return fmt::format("the load stopped after {:.2f} s: {}", figures.seconds, figures.first_error);
  }
  return fmt::format("{} of {} steps failed ({} of them while warming up): {}", failed,
                     figures.steps_due + figures.warm_up_errors, figures.warm_up_errors,
                     figures.first_error);
}

client::SourceStats Difference(const client::SourceStats& later,
                               const client::SourceStats& earlier) {
  client::SourceStats difference = later;
  difference.rows_asked -= earlier.rows_asked;
  difference.rows_distinct -= earlier.rows_distinct;
  difference.failovers -= earlier.failovers;
  difference.hedges_sent -= earlier.hedges_sent;
  difference.hedges_won -= earlier.hedges_won;
  difference.reconnects -= earlier.reconnects;
  for (size_t i = 0; i < later.nodes.size() && i < earlier.nodes.size(); ++i) {
    client::SourceStats::Node& node = difference.nodes[i];
    node.rows_fetched -= earlier.nodes[i].rows_fetched;
    node.bytes_fetched -= earlier.nodes[i].bytes_fetched;
    node.requests -= earlier.nodes[i].requests;
    for (size_t p = 0; p < client::kPathCount; ++p) {
      node.rows_by_path[p] -= earlier.nodes[i].rows_by_path[p];
    }
  }
  return difference;
}

std::string_view ArrivalsName(Arrivals arrivals) {
  switch (arrivals) {
    case Arrivals::kClosed:
      return "closed";
    case Arrivals::kConstant:
      return "constant";
    case Arrivals::kPoisson:
      return "poisson";
  }
  return "?";
}

}  // namespace engram::memnode::load
