#include "tests/bench/harness/ceilings.h"

#include <fmt/format.h>

namespace engram::bench {

bool LongEnoughToJudge(const RoundOptions& options) {
  return options.rounds >= 5 && options.seconds >= 0.2;
}

Status CheckCeilings(std::span<const BoundedLeg> legs) {
  std::string wrong;
  for (const BoundedLeg& bounded : legs) {
    if (bounded.ratio.median <= kCeilingRatioMax) continue;
    const std::string why =
        bounded.compared
            ? fmt::format("the ceiling \"{}\" is too low, for the bytes of \"{}\" were compared",
                          bounded.ceiling, bounded.leg)
            : fmt::format("\"{}\" may leave work out, for nothing compared its bytes", bounded.leg);
    wrong += fmt::format("{}\"{}\" is {:.2f} ({:.2f}..{:.2f}) of \"{}\": {}",
                         wrong.empty() ? "" : "; ", bounded.leg, bounded.ratio.median,
                         bounded.ratio.min, bounded.ratio.max, bounded.ceiling, why);
  }
  if (wrong.empty()) return OkStatus();
  return FailedPrecondition(
      fmt::format("a ratio to a ceiling exceeds {}: {}", kCeilingRatioMax, wrong));
}

}  // namespace engram::bench
