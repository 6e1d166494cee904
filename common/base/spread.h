// What repeated measurements of one thing came to.
#pragma once

#include <string>
#include <vector>

namespace engram {

struct Spread {
  double median = 0, min = 0, max = 0;
};
Spread SpreadOf(std::vector<double> values);  // zeros of none
// "12.3 (11.9..12.8)" of values scaled by `scale`.
std::string SpreadText(const Spread& spread, double scale, int decimals);

}  // namespace engram
