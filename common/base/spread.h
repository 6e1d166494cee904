// Median and range of repeated measurements.
#pragma once

#include <string>
#include <vector>

namespace engram {

struct Spread {
  double median = 0, min = 0, max = 0;
};
Spread SpreadOf(std::vector<double> values);  // zeros of none
// Between which of the values the median of all that might be measured lies, 95 times in 100 (order
// statistics of a binomial); all of them when there are fewer than 6.
struct Interval {
  double low = 0, high = 0;
};
Interval MedianInterval(std::vector<double> values);
// "12.3 (11.9..12.8)" of values scaled by `scale`.
std::string SpreadText(const Spread& spread, double scale, int decimals);

}  // namespace engram
