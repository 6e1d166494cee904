// Line charts as SVG, side by side: plain shapes and text, readable on light and dark pages.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace engram::memnode::load {

struct PlotSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // by x
};

struct PlotPanel {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_x = false;  // values must be > 0; others are left out
  bool log_y = false;
  std::vector<PlotSeries> series;  // at most kPlotSeriesMax
};
inline constexpr size_t kPlotSeriesMax = 4;

// `caption` goes below the panels.
std::string RenderSvg(const std::vector<PlotPanel>& panels, const std::string& caption);
Status WritePlot(const std::string& svg, const std::string& path);

// Round tick values within [low, high]: 1, 2 or 5 times a power of ten.
std::vector<double> Ticks(double low, double high, bool logarithmic);
// 1500 -> "1.5k", 2e6 -> "2M".
std::string ShortNumber(double value);

}  // namespace engram::memnode::load
