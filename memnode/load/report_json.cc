#include "memnode/load/report_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

namespace engram::memnode::load {
namespace {

constexpr std::pair<const char*, double> kReportedQuantiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};

json::object LatencyJson(const obs::LatencyHistogram& histogram, bool refused) {
  json::object object;
  for (const auto& [name, quantile] : kReportedQuantiles) {
    if (refused)
      object[name] = nullptr;
    else
      object[name] = static_cast<double>(histogram.QuantileNs(quantile)) / 1e3;
  }
  return object;
}

json::array LayersJson(const RunFigures& figures, bool refused) {
  json::array layers;
  const std::vector<double>& deadlines = figures.settings.layer_deadlines_us;
  for (size_t i = 0; i < figures.layers.size(); ++i) {
    const LayerFigures& layer = figures.layers[i];
    json::object& object = layers.emplace_back(json::object()).as_object();
    object["layer_id"] = layer.layer_id;
    object["latency_us"] = LatencyJson(layer.latency, refused);
    if (i >= deadlines.size()) continue;
    object["deadline_us"] = deadlines[i];
    object["missed"] = layer.missed;
    object["missed_ratio"] = static_cast<double>(layer.missed) /
                             static_cast<double>(std::max<uint64_t>(1, layer.latency.total()));
    object["slack_us"] = LatencyJson(layer.slack, refused);
    object["lateness_us"] = LatencyJson(layer.lateness, refused);
  }
  return layers;
}

json::array SeriesJson(const RunFigures& figures, bool refused) {
  json::array series;
  for (const SecondFigures& second : figures.series) {
    json::object& object = series.emplace_back(json::object()).as_object();
    object["second"] = second.second;
    object["steps"] = second.steps;
    object["rows"] = second.rows;
    object["errors"] = second.errors;
    object["outstanding"] = second.outstanding;
    if (refused) continue;
    object["p50_us"] = second.p50_us;
    object["p99_us"] = second.p99_us;
  }
  return series;
}

json::object ErrorsJson(const RunFigures& figures) {
  json::object errors;
  for (const auto& [code, count] : figures.errors_by_code) errors[CodeName(code)] = count;
  return errors;
}

json::object SettingsJson(const RunFigures& figures) {
  return {{"arrivals", ArrivalsName(figures.settings.arrivals)},
          {"intended_steps_per_s", figures.settings.steps_per_s},
          {"outstanding_max", figures.settings.outstanding},
          {"sequences", figures.shape.sequences},
          {"tokens", figures.shape.tokens},
          {"rows_per_step", figures.rows_per_step},
          {"row_bytes", figures.row_bytes},
          {"warm_up_seconds", figures.settings.warm_up_seconds},
          {"verify_rate", figures.settings.verify_rate},
          {"slip_tolerance_us", figures.settings.slip_tolerance.count() / 1000},
          {"pool_steps", figures.pool_steps},
          {"pool_bytes", figures.pool_bytes}};
}

json::object PathsJson(const RunFigures& figures) {
  json::object paths;
  for (size_t i = 0; i < client::kPathCount; ++i) {
    const auto path = static_cast<client::Path>(i);
    paths[client::PathName(path)] = figures.rows_by_path(path);
  }
  return paths;
}

void AddCosts(const RunFigures& figures, json::object& report) {
  const auto asked = static_cast<double>(std::max<uint64_t>(1, figures.service.rows_asked));
  report["client_cpu_us_per_row"] = figures.client_cpu_seconds * 1e6 / asked;
  report["submit_us_per_row"] =
      figures.submit_seconds * 1e6 /
      static_cast<double>(std::max<uint64_t>(1, figures.steps_sent * figures.rows_per_step));
  if (figures.node_cpu_seconds >= 0) {
    report["node_cpu_us_per_row"] = figures.node_cpu_seconds * 1e6 / asked;
  } else {
    report["node_cpu_us_per_row"] = nullptr;
  }
}

}  // namespace

json::object RunJson(const RunFigures& figures, const std::string& refusal) {
  const bool refused = !refusal.empty();
  json::object report = PointJson(figures);
  report["refused"] = refused;
  if (refused) report["refused_why"] = refusal;
  report["step_latency_us"] = LatencyJson(figures.step_latency, refused);
  report["seconds"] = figures.seconds;
  report["interrupted"] = figures.interrupted;
  report["steps_due"] = figures.steps_due;
  report["steps_unsent"] = figures.steps_unsent;
  report["errors_by_code"] = ErrorsJson(figures);
  report["first_error"] = figures.first_error;
  report["warm_up_errors"] = figures.warm_up_errors;
  report["verified_rows"] = figures.verify.rows;
  report["wrong_rows"] = figures.verify.wrong_rows;
  report["verify_seconds"] = figures.verify.seconds;
  if (figures.verify.first.has_value()) {
    report["first_wrong_row"] = figures.verify.first->ToString();
  }
  report["distinct_ratio"] = figures.distinct_ratio();
  report["wire_bytes_per_row"] = figures.wire_bytes_per_row();
  report["path"] = figures.path();
  report["rows_by_path"] = PathsJson(figures);
  report["failovers"] = figures.service.failovers;
  report["hedges_sent"] = figures.service.hedges_sent;
  report["hedges_won"] = figures.service.hedges_won;
  report["reconnects"] = figures.service.reconnects;
  report["worst_stall_us"] = static_cast<double>(figures.step_latency.QuantileNs(1.0)) / 1e3;
  AddCosts(figures, report);
  report["layers"] = LayersJson(figures, refused);
  report["series"] = SeriesJson(figures, refused);
  report["settings"] = SettingsJson(figures);
  return report;
}

json::object PointJson(const RunFigures& figures) {
  const double rows_per_s = figures.rows_per_s();
  json::object point;
  point["rows_per_s"] = rows_per_s;
  point["distinct_rows_per_s"] = rows_per_s * figures.distinct_ratio();
  point["bytes_per_s"] = rows_per_s * static_cast<double>(figures.row_bytes);
  point["steps_per_s"] = figures.steps_per_s();
  point["intended_steps_per_s"] = figures.settings.steps_per_s;
  point["step_latency_us"] = LatencyJson(figures.step_latency, !RefusalOf(figures).empty());
  point["errors"] = figures.errors;
  point["send_slip_ratio"] = figures.send_slip_ratio();
  point["positions"] = figures.shape.positions();
  return point;
}

json::object KneeJson(const Knee& knee, double p99_us) {
  json::object object{{"p99_bound_us", p99_us}, {"found", knee.best >= 0}};
  object["at_upper_bound"] = knee.at_upper_bound;
  if (knee.best >= 0) {
    const Probe& best = knee.probes[static_cast<size_t>(knee.best)];
    object["steps_per_s"] = best.steps_per_s;
    object["point"] = PointJson(best.figures);
  }
  json::array probes;
  for (const Probe& probe : knee.probes) {
    json::object point = PointJson(probe.figures);
    point["held"] = probe.held;
    point["why_not"] = probe.why_not;
    probes.push_back(std::move(point));
  }
  object["probes"] = std::move(probes);
  return object;
}

json::object EnvironmentJson(const Environment& environment) {
  return {{"kernel", environment.kernel},
          {"cpu_model", environment.cpu_model},
          {"cores", environment.cores},
          {"transparent_huge_pages", environment.transparent_huge_pages},
          {"huge_pages_reserved", environment.huge_pages_reserved},
          {"load_average_before", environment.load_average},
          {"build", environment.build},
          {"version", environment.version},
          {"command_line", environment.command_line},
          {"started_utc", environment.started_utc}};
}

Status WriteJson(const json::object& report, const std::string& path) {
  std::ofstream out(path);
  out << json::serialize(report) << "\n";
  if (out.flush()) return OkStatus();
  return InternalError(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
}

}  // namespace engram::memnode::load
