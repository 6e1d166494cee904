#include "memnode/load/report_text.h"

#include <fmt/format.h>

#include <algorithm>

namespace engram::memnode::load {
namespace {

double Us(uint64_t ns) { return static_cast<double>(ns) / 1e3; }

std::string Percentiles(const obs::LatencyHistogram& histogram) {
  return fmt::format("p50 {:.0f}   p90 {:.0f}   p99 {:.0f}   p99.9 {:.0f}   max {:.0f}",
                     Us(histogram.QuantileNs(0.5)), Us(histogram.QuantileNs(0.9)),
                     Us(histogram.QuantileNs(0.99)), Us(histogram.QuantileNs(0.999)),
                     Us(histogram.max_ns()));
}

void AddRates(const RunFigures& figures, std::string& text) {
  text += fmt::format(
      "rows/s            {:.2f} M, distinct {:.2f} M ({:.1f} %)   {:.2f} GB/s   {:.0f} steps/s of "
      "{} rows   over {:.1f} s{}\n",
      figures.rows_per_s() / 1e6, figures.rows_per_s() * figures.distinct_ratio() / 1e6,
      figures.distinct_ratio() * 100,
      figures.rows_per_s() * static_cast<double>(figures.row_bytes) / 1e9, figures.steps_per_s(),
      figures.rows_per_step, figures.seconds, figures.interrupted ? " (interrupted)" : "");
  text += fmt::format("path              {}", figures.path());
  if (!figures.service.nodes.empty()) {
    text += fmt::format("   {:.1f} bytes on the wire per row asked", figures.wire_bytes_per_row());
  }
  text += fmt::format("   ids of {} steps made ahead ({} MiB)\n", figures.pool_steps,
                      figures.pool_bytes >> 20);
  if (!figures.open_loop()) return;
  text += fmt::format(
      "schedule          {} arrivals, {:.0f} steps/s intended, {} due, {} not sent in time, slip "
      "{:.2f} %\n",
      ArrivalsName(figures.settings.arrivals), figures.settings.steps_per_s, figures.steps_due,
      figures.steps_unsent, figures.send_slip_ratio() * 100);
}

void AddLayers(const RunFigures& figures, std::string& text) {
  const std::vector<double>& deadlines = figures.settings.layer_deadlines_us;
  for (size_t i = 0; i < figures.layers.size(); ++i) {
    const LayerFigures& layer = figures.layers[i];
    text += fmt::format("layer {:<4} us     {}\n", layer.layer_id, Percentiles(layer.latency));
    if (i >= deadlines.size()) continue;
    const uint64_t total = std::max<uint64_t>(1, layer.latency.total());
    text += fmt::format(
        "  needed at {:.0f}   missed {} ({:.3f} %)   slack p50 {:.0f}   p1 {:.0f}   late p50 "
        "{:.0f}   max {:.0f}\n",
        deadlines[i], layer.missed,
        static_cast<double>(layer.missed) * 100 / static_cast<double>(total),
        Us(layer.slack.QuantileNs(0.5)), Us(layer.slack.QuantileNs(0.01)),
        Us(layer.lateness.QuantileNs(0.5)), Us(layer.lateness.max_ns()));
  }
}

void AddCosts(const RunFigures& figures, std::string& text) {
  const auto asked = static_cast<double>(std::max<uint64_t>(1, figures.service.rows_asked));
  const auto sent_rows =
      static_cast<double>(std::max<uint64_t>(1, figures.steps_sent * figures.rows_per_step));
  text += fmt::format("CPU us per row    client {:.4f} (waiting included; inside Submit {:.4f})",
                      figures.client_cpu_seconds * 1e6 / asked,
                      figures.submit_seconds * 1e6 / sent_rows);
  if (figures.node_cpu_seconds >= 0) {
    text += fmt::format("   nodes {:.4f}", figures.node_cpu_seconds * 1e6 / asked);
  }
  text += fmt::format(
      "\nverified rows     {}   wrong {}   ({:.2f} s spent comparing, outside the latencies)\n",
      figures.verify.rows, figures.verify.wrong_rows, figures.verify.seconds);
  if (figures.verify.first.has_value()) {
    text += fmt::format("first wrong row   {}\n", figures.verify.first->ToString());
  }
  text += fmt::format("errors            {}", figures.errors);
  for (const auto& [code, count] : figures.errors_by_code) {
    text += fmt::format("   {} {}", CodeName(code), count);
  }
  if (figures.warm_up_errors > 0) text += fmt::format("   warm-up {}", figures.warm_up_errors);
  if (!figures.first_error.empty()) text += fmt::format("   first: {}", figures.first_error);
  text += "\n";
}

}  // namespace

std::string TextReport(const RunFigures& figures, const std::string& refusal) {
  std::string text;
  AddRates(figures, text);
  if (refusal.empty()) {
    text += fmt::format("step latency us   {}\n", Percentiles(figures.step_latency));
    AddLayers(figures, text);
  } else {
    text += fmt::format("step latency us   refused: {}\n", refusal);
  }
  AddCosts(figures, text);
  return text;
}

std::string ProbeLine(const Probe& probe) {
  const RunFigures& figures = probe.figures;
  return fmt::format(
      "  {:>9.0f} steps/s   {:>6.2f} M rows/s   p50 {:>6.0f}   p99 {:>7.0f}   p99.9 {:>7.0f}   "
      "{}\n",
      probe.steps_per_s, figures.rows_per_s() / 1e6, figures.latency_us(0.5),
      figures.latency_us(0.99), figures.latency_us(0.999),
      probe.held ? "holds" : "does not hold: " + probe.why_not);
}

std::string KneeText(const Knee& knee, double p99_us) {
  if (knee.best < 0) {
    return fmt::format("knee              none: p99 <= {:.0f} us holds at no rate tried\n", p99_us);
  }
  const Probe& best = knee.probes[static_cast<size_t>(knee.best)];
  return fmt::format(
      "knee              {:.0f} steps/s ({:.2f} M rows/s) hold p99 <= {:.0f} us: p50 {:.0f}   p99 "
      "{:.0f}   p99.9 {:.0f}{}\n",
      best.steps_per_s, best.figures.rows_per_s() / 1e6, p99_us, best.figures.latency_us(0.5),
      best.figures.latency_us(0.99), best.figures.latency_us(0.999),
      knee.at_upper_bound ? "   (the highest rate tried: it may lie above)" : "");
}

std::string EnvironmentText(const Environment& environment) {
  return fmt::format("on                {}, {} cores, {}, THP {}, load {}, {}\n",
                     environment.cpu_model, environment.cores, environment.kernel,
                     environment.transparent_huge_pages, environment.load_average,
                     environment.build);
}

}  // namespace engram::memnode::load
