#include "common/base/spread.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace engram {

Spread SpreadOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back()};
}

Interval MedianInterval(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  // The most values that can be left out at each end: how many of n lie below the median is
  // binomial(n, 1/2), and fewer than `cut` of them must come in less than 1 case in 40.
  const auto n = static_cast<double>(values.size());
  size_t cut = 0;
  double chance = std::exp2(-n), below = 0;  // of exactly, of fewer than `cut`
  while (below + chance <= 0.025) {
    below += chance;
    chance *= (n - static_cast<double>(cut)) / static_cast<double>(cut + 1);
    ++cut;
  }
  const size_t first = cut == 0 ? 0 : cut - 1;
  return {values[first], values[values.size() - 1 - first]};
}

std::string SpreadText(const Spread& spread, double scale, int decimals) {
  return fmt::format("{:.{}f} ({:.{}f}..{:.{}f})", spread.median * scale, decimals,
                     spread.min * scale, decimals, spread.max * scale, decimals);
}

}  // namespace engram
