// Line charts as SVG, side by side, drawn by gnuplot (Debian's package gnuplot-nox): for --plot
// alone, so that the programs run without it.
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
  std::vector<PlotSeries> series;
};

// FAILED_PRECONDITION names the package when gnuplot is missing. For the start of a program: what
// it measures for hours is to be drawn at its end.
Status CheckGnuplot();
// `caption` goes below the panels. CheckGnuplot's errors; INTERNAL quotes gnuplot's complaint.
Result<std::string> RenderSvg(const std::vector<PlotPanel>& panels, const std::string& caption);
Status WritePlot(const std::string& svg, const std::string& path);

}  // namespace engram::memnode::load
