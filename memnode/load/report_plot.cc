#include "memnode/load/report_plot.h"

#include <fmt/format.h>

#include <algorithm>

namespace engram::memnode::load {
namespace {

PlotPanel LatencyPanel(std::vector<const RunFigures*> runs) {
  std::sort(runs.begin(), runs.end(), [](const RunFigures* a, const RunFigures* b) {
    return a->settings.steps_per_s < b->settings.steps_per_s;
  });
  PlotPanel panel{.title = "Latency from the intended time, open loop",
                  .x_label = "steps/s intended",
                  .y_label = "step latency, \xc2\xb5s",
                  .log_y = true,
                  .series = {{"p50", {}}, {"p99", {}}, {"p99.9", {}}}};
  constexpr double kQuantiles[] = {0.5, 0.99, 0.999};
  for (const RunFigures* run : runs) {
    if (!RefusalOf(*run).empty() || run->step_latency.total() == 0) continue;
    for (size_t i = 0; i < panel.series.size(); ++i) {
      panel.series[i].points.emplace_back(run->settings.steps_per_s,
                                          run->latency_us(kQuantiles[i]));
    }
  }
  return panel;
}

PlotPanel BatchPanel(std::vector<const RunFigures*> runs) {
  std::sort(runs.begin(), runs.end(), [](const RunFigures* a, const RunFigures* b) {
    return a->shape.positions() < b->shape.positions();
  });
  PlotPanel panel{.title = "Throughput by batch, closed loop",
                  .x_label = "tokens a step",
                  .y_label = "rows/s",
                  .log_x = true,
                  .series = {{"rows/s", {}}}};
  for (const RunFigures* run : runs) {
    panel.series[0].points.emplace_back(static_cast<double>(run->shape.positions()),
                                        run->rows_per_s());
  }
  return panel;
}

}  // namespace

std::vector<PlotPanel> LoadPanels(std::vector<const RunFigures*> rates,
                                  std::vector<const RunFigures*> batches) {
  std::vector<PlotPanel> panels;
  if (!rates.empty()) panels.push_back(LatencyPanel(std::move(rates)));
  if (!batches.empty()) panels.push_back(BatchPanel(std::move(batches)));
  return panels;
}

std::string PlotCaption(const RunFigures& figures, const Environment& environment) {
  return fmt::format("{}, {} cores, load {}; rows of {} bytes, path {}, {:.1f} s a point, {}",
                     environment.cpu_model, environment.cores, environment.load_average,
                     figures.row_bytes, figures.path(), figures.settings.seconds,
                     environment.started_utc);
}

std::string SweepLine(const RunFigures& figures) {
  const std::string asked = figures.open_loop()
                                ? fmt::format("{:.0f} steps/s", figures.settings.steps_per_s)
                                : fmt::format("{} tokens", figures.shape.positions());
  return fmt::format(
      "  {:>16}   {:>6.2f} M rows/s   {:>8.0f} steps/s   p50 {:>6.0f}   p99 {:>7.0f}   p99.9 "
      "{:>7.0f}   errors {}{}\n",
      asked, figures.rows_per_s() / 1e6, figures.steps_per_s(), figures.latency_us(0.5),
      figures.latency_us(0.99), figures.latency_us(0.999), figures.errors,
      RefusalOf(figures).empty() ? "" : "   refused");
}

}  // namespace engram::memnode::load
