// A ceiling that something exceeds is found, and the message says which of both is wrong.
#include "tests/bench/harness/ceilings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace engram::bench {
namespace {

using testing::HasSubstr;
using testing::Not;

BoundedLeg Bounded(double ratio, bool compared) {
  return {"leg", "ceiling", {.median = ratio, .min = ratio - 0.1, .max = ratio + 0.1}, compared};
}

TEST(Ceilings, ALegBelowItsCeilingIsFine) {
  const BoundedLeg legs[] = {Bounded(0.8, true), Bounded(1.05, false)};
  EXPECT_TRUE(CheckCeilings(legs).ok());
}

TEST(Ceilings, AComparedLegAboveItsCeilingShowsThatTheCeilingIsTooLow) {
  const BoundedLeg legs[] = {Bounded(0.8, false), Bounded(1.19, true)};
  const Status status = CheckCeilings(legs);
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("\"leg\" is 1.19 (1.09..1.29) of \"ceiling\""));
  EXPECT_THAT(status.message(), HasSubstr("the ceiling \"ceiling\" is too low"));
  EXPECT_THAT(status.message(), Not(HasSubstr("0.80")));
}

TEST(Ceilings, ALegNothingComparedMayLeaveWorkOut) {
  const BoundedLeg legs[] = {Bounded(1.2, false)};
  EXPECT_THAT(CheckCeilings(legs).message(), HasSubstr("\"leg\" may leave work out"));
}

TEST(Ceilings, AShortRunIsNotJudged) {
  EXPECT_FALSE(LongEnoughToJudge({.rounds = 1, .seconds = 1}));
  EXPECT_FALSE(LongEnoughToJudge({.rounds = 12, .seconds = 0.02}));
  EXPECT_TRUE(LongEnoughToJudge({.rounds = 5, .seconds = 0.2}));
}

}  // namespace
}  // namespace engram::bench
