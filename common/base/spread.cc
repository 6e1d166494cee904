#include "common/base/spread.h"

#include <fmt/format.h>

#include <algorithm>

namespace engram {

Spread SpreadOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back()};
}

std::string SpreadText(const Spread& spread, double scale, int decimals) {
  return fmt::format("{:.{}f} ({:.{}f}..{:.{}f})", spread.median * scale, decimals,
                     spread.min * scale, decimals, spread.max * scale, decimals);
}

}  // namespace engram
