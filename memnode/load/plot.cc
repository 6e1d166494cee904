#include "memnode/load/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "common/base/check.h"

namespace engram::memnode::load {
namespace {

constexpr double kPanelWidth = 460;
constexpr double kPanelHeight = 340;
constexpr double kLeft = 64;  // of a panel, up to its axis
constexpr double kRight = 18;
constexpr double kTop = 58;
constexpr double kBottom = 52;
constexpr double kCaptionHeight = 30;
constexpr double kCaptionCharacters = 150;

// Colours that can be told apart on white and on near-black, also by the colour-blind; every series
// has a marker shape of its own as well.
constexpr const char* kStyle =
    "text{font-family:system-ui,-apple-system,'Segoe UI',sans-serif;font-size:12px;fill:#24292f}"
    ".title{font-size:14px;font-weight:600}.small{font-size:11px;fill:#57606a}"
    ".page{fill:#ffffff}.grid{stroke:#d8dee4;stroke-width:1}.axis{stroke:#57606a;stroke-width:1}"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round}"
    ".s0{stroke:#0969da}.m0{fill:#0969da}.s1{stroke:#bf5700}.m1{fill:#bf5700}"
    ".s2{stroke:#8250df}.m2{fill:#8250df}.s3{stroke:#1a7f37}.m3{fill:#1a7f37}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.page{fill:#0d1117}"
    ".grid{stroke:#30363d}.axis{stroke:#9198a1}.s0{stroke:#58a6ff}.m0{fill:#58a6ff}"
    ".s1{stroke:#f0883e}.m1{fill:#f0883e}.s2{stroke:#bc8cff}.m2{fill:#bc8cff}"
    ".s3{stroke:#3fb950}.m3{fill:#3fb950}}";

std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '<')
      escaped += "&lt;";
    else if (c == '>')
      escaped += "&gt;";
    else if (c == '&')
      escaped += "&amp;";
    else if (c == '"')
      escaped += "&quot;";
    else if (static_cast<unsigned char>(c) >= 32)
      escaped += c;
  }
  return escaped;
}

// Values to pixels along one axis.
class Scale {
 public:
  Scale(double low, double high, bool logarithmic, double from, double to)
      : low_(low), high_(high), logarithmic_(logarithmic), from_(from), to_(to) {}
  double At(double value) const {
    const double share = logarithmic_ ? std::log(value / low_) / std::log(high_ / low_)
                                      : (value - low_) / (high_ - low_);
    return from_ + share * (to_ - from_);
  }
  std::vector<double> ticks() const { return Ticks(low_, high_, logarithmic_); }

 private:
  double low_, high_;
  bool logarithmic_;
  double from_, to_;
};

bool Drawable(const PlotPanel& panel, const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second) &&
         (!panel.log_x || point.first > 0) && (!panel.log_y || point.second > 0);
}

// The values of one coordinate with some room around them.
std::pair<double, double> RangeOf(const PlotPanel& panel, bool x) {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (const PlotSeries& series : panel.series) {
    for (const auto& point : series.points) {
      if (!Drawable(panel, point)) continue;
      low = std::min(low, x ? point.first : point.second);
      high = std::max(high, x ? point.first : point.second);
    }
  }
  if (low > high) return {1, 10};  // nothing to draw
  if (x ? panel.log_x : panel.log_y) return {low / 1.25, high * 1.25};
  return {0, high > 0 ? high * 1.08 : 1};
}

std::string Marker(size_t index, double x, double y) {
  switch (index) {
    case 0:
      return fmt::format("<circle class=\"m0\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"/>", x, y);
    case 1:
      return fmt::format(
          "<rect class=\"m1\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"6.4\" height=\"6.4\"/>", x - 3.2,
          y - 3.2);
    case 2:
      return fmt::format("<path class=\"m2\" d=\"M{:.1f} {:.1f}l4.4 7.6h-8.8z\"/>", x, y - 4.8);
    default:
      return fmt::format("<path class=\"m3\" d=\"M{:.1f} {:.1f}l4.6 4.6l-4.6 4.6l-4.6 -4.6z\"/>", x,
                         y - 4.6);
  }
}

std::string Text(double x, double y, const char* anchor, const char* style,
                 const std::string& text) {
  return fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n",
                     style, x, y, anchor, Escaped(text));
}

std::string Line(const char* style, double x1, double y1, double x2, double y2) {
  return fmt::format(
      "<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", style, x1,
      y1, x2, y2);
}

std::string DrawAxes(const PlotPanel& panel, const Scale& x_scale, const Scale& y_scale,
                     double left) {
  const double right = left + kPanelWidth - kLeft - kRight;
  const double bottom = kPanelHeight - kBottom;
  std::string svg;
  for (const double tick : y_scale.ticks()) {
    const double y = y_scale.At(tick);
    svg += Line("grid", left, y, right, y);
    svg += Text(left - 7, y + 4, "end", "small", ShortNumber(tick));
  }
  for (const double tick : x_scale.ticks()) {
    const double x = x_scale.At(tick);
    svg += Line("axis", x, bottom, x, bottom + 4);
    svg += Text(x, bottom + 17, "middle", "small", ShortNumber(tick));
  }
  svg += Line("axis", left, bottom, right, bottom) + Line("axis", left, kTop, left, bottom);
  svg += Text((left + right) / 2, bottom + 36, "middle", "label", panel.x_label);
  svg += fmt::format(
      "<text class=\"label\" text-anchor=\"middle\" transform=\"translate({:.1f} {:.1f}) "
      "rotate(-90)\">{}</text>\n",
      left - 46, (kTop + bottom) / 2, Escaped(panel.y_label));
  return svg + Text(left, 22, "start", "title", panel.title);
}

std::string DrawSeries(const PlotPanel& panel, size_t index, const Scale& x_scale,
                       const Scale& y_scale) {
  std::string line;
  std::string markers;
  for (const auto& point : panel.series[index].points) {
    if (!Drawable(panel, point)) continue;
    const double x = x_scale.At(point.first);
    const double y = y_scale.At(point.second);
    line += fmt::format("{}{:.1f},{:.1f}", line.empty() ? "" : " ", x, y);
    markers += Marker(index, x, y);
  }
  return fmt::format("<polyline class=\"line s{}\" points=\"{}\"/>\n{}\n", index, line, markers);
}

std::string DrawPanel(const PlotPanel& panel, double offset) {
  CHECK(panel.series.size() <= kPlotSeriesMax);
  const double left = offset + kLeft;
  const auto [x_low, x_high] = RangeOf(panel, true);
  const auto [y_low, y_high] = RangeOf(panel, false);
  const Scale x_scale(x_low, x_high, panel.log_x, left, offset + kPanelWidth - kRight);
  const Scale y_scale(y_low, y_high, panel.log_y, kPanelHeight - kBottom, kTop);
  std::string svg = DrawAxes(panel, x_scale, y_scale, left);
  double legend = left;
  for (size_t i = 0; i < panel.series.size(); ++i) {
    svg += DrawSeries(panel, i, x_scale, y_scale);
    if (panel.series.size() == 1) continue;
    svg += fmt::format("<path class=\"line s{}\" d=\"M{:.1f} 39h20\"/>", i, legend);
    svg += Marker(i, legend + 10, 39) + "\n";
    svg += Text(legend + 26, 43, "start", "label", panel.series[i].name);
    legend += 42 + 7.2 * static_cast<double>(panel.series[i].name.size());
  }
  return svg;
}

}  // namespace

std::vector<double> Ticks(double low, double high, bool logarithmic) {
  std::vector<double> ticks;
  if (!(high > low) || (logarithmic && low <= 0)) return ticks;
  if (logarithmic) {
    const bool dense = high / low < 400;  // under three decades: 2 and 5 as well
    for (double decade = std::pow(10, std::floor(std::log10(low))); decade <= high; decade *= 10) {
      for (const double factor : {1.0, 2.0, 5.0}) {
        const double tick = decade * factor;
        if ((dense || factor == 1) && tick >= low && tick <= high) ticks.push_back(tick);
      }
    }
    return ticks;
  }
  const double rough = (high - low) / 6;
  const double decade = std::pow(10, std::floor(std::log10(rough)));
  const double lead = rough / decade;
  const double step = decade * (lead > 5 ? 10 : lead > 2 ? 5 : lead > 1 ? 2 : 1);
  const auto last = static_cast<int64_t>(std::floor(high / step + 1e-9));
  for (auto i = static_cast<int64_t>(std::ceil(low / step - 1e-9)); i <= last; ++i) {
    ticks.push_back(static_cast<double>(i) * step);
  }
  return ticks;
}

std::string ShortNumber(double value) {
  for (const auto& [unit, name] : {std::pair{1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
    if (std::abs(value) >= unit) return fmt::format("{:.4g}{}", value / unit, name);
  }
  return fmt::format("{:.4g}", value);
}

std::string RenderSvg(const std::vector<PlotPanel>& panels, const std::string& caption) {
  const double width = kPanelWidth * static_cast<double>(std::max<size_t>(1, panels.size()));
  const double height = kPanelHeight + kCaptionHeight;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\">\n<style>{2}</style>\n"
      "<rect class=\"page\" width=\"{0:.0f}\" height=\"{1:.0f}\"/>\n",
      width, height, kStyle);
  for (size_t i = 0; i < panels.size(); ++i) {
    svg += DrawPanel(panels[i], kPanelWidth * static_cast<double>(i));
  }
  const auto fitting = static_cast<size_t>(width / 920 * kCaptionCharacters);
  svg += Text(14, kPanelHeight + 12, "start", "small", caption.substr(0, fitting));
  return svg + "</svg>\n";
}

Status WritePlot(const std::string& svg, const std::string& path) {
  std::ofstream out(path);
  out << svg;
  if (out.flush()) return OkStatus();
  return InternalError(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
}

}  // namespace engram::memnode::load
