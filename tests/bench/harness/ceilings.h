// Whether what a run calls a ceiling is one: nothing is faster than what bounds it. A benchmark
// whose ceiling is too low flatters the product, so it fails instead.
#pragma once

#include <span>
#include <string>

#include "common/base/spread.h"
#include "common/base/status.h"
#include "tests/bench/harness/rounds.h"

namespace engram::bench {

// What a leg may exceed its ceiling by: drift between two legs of a round.
inline constexpr double kCeilingRatioMax = 1.05;

// One leg beside what bounds it.
struct BoundedLeg {
  std::string leg, ceiling;
  Spread ratio;           // leg / ceiling, of rates; for times, ceiling / leg
  bool compared = false;  // the leg's bytes were compared with what they must be
};

// Runs shorter than 5 rounds of 0.2 s are not judged.
bool LongEnoughToJudge(const RoundOptions& options);

// FAILED_PRECONDITION when a median exceeds kCeilingRatioMax: names both and says which is wrong. A
// leg whose bytes were compared did its work, so its ceiling is too low; one whose bytes nothing
// looked at may have left work out.
Status CheckCeilings(std::span<const BoundedLeg> legs);

}  // namespace engram::bench
