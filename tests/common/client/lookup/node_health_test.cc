// When a node counts as down, and when its lookups are not worth sending.
#include "common/client/lookup/node_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace engram::client {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr Nanos kFirst = milliseconds(100);

TimePoint At(int ms) { return TimePoint() + std::chrono::hours(1) + milliseconds(ms); }
Status Late() { return DeadlineExceeded("no complete answer before the deadline"); }

// A probe sent at `ms` that ends as `status` when its time is over.
int Probe(NodeHealth& health, int ms, const Status& status) {
  const Nanos timeout = health.ProbeTimeout(kFirst);
  const int end = ms + static_cast<int>(timeout / milliseconds(1));
  health.ProbeSent();
  EXPECT_TRUE(health.probing());
  health.ProbeEnded(status, timeout, At(end));
  EXPECT_FALSE(health.probing());
  return end;
}

TEST(NodeHealth, ASilentNodeIsDownThenSkippedAndIsAskedLessAndLessOften) {
  NodeHealth health;
  int now = Probe(health, 0, Late());
  EXPECT_THAT(health.status().message(), HasSubstr("no row in 100 ms"));
  EXPECT_FALSE(health.skipped()) << "one probe may be lost to a busy machine";
  EXPECT_EQ(health.probe_due(), At(now)) << "again at once";
  now = Probe(health, now, Late());
  EXPECT_EQ(now, 300);
  EXPECT_TRUE(health.skipped());
  for (int i = 0; i < 20; ++i) now = Probe(health, now, Late());
  EXPECT_EQ(health.ProbeTimeout(kFirst), kFirst * 64);
}

TEST(NodeHealth, AnAnswerMakesItUpAgain) {
  NodeHealth health;
  const int now = Probe(health, Probe(health, 0, Late()), Late());
  health.ProbeSent();
  health.ProbeEnded(OkStatus(), health.ProbeTimeout(kFirst), At(now + 1));
  EXPECT_TRUE(health.status().ok());
  EXPECT_FALSE(health.skipped());
  EXPECT_EQ(health.ProbeTimeout(kFirst), kFirst);
  EXPECT_EQ(health.probe_due(), At(now + 1) + kProbeEvery);
}

TEST(NodeHealth, ANodeThatIsBusyWithOthersIsNotDown) {
  NodeHealth health;
  health.Heard(At(50));
  int now = Probe(health, 0, Late());
  EXPECT_TRUE(health.status().ok());
  health.LookupMissed(At(20), At(60));
  EXPECT_TRUE(health.status().ok());
  EXPECT_FALSE(health.skipped());
  now = Probe(health, now, ResourceExhausted("the queue is full"));
  EXPECT_TRUE(health.status().ok());
}

TEST(NodeHealth, ALookupsMissedDeadlineSkipsItAtOnce) {
  NodeHealth health;
  health.Heard(At(10));
  health.LookupMissed(At(10), At(710));
  EXPECT_TRUE(health.skipped());
  EXPECT_THAT(health.status().message(), HasSubstr("deadline of 700 ms"));
  EXPECT_EQ(health.probe_due(), At(710));
}

TEST(NodeHealth, ANodeThatAnswersWithErrorsIsDownAndNotSkipped) {
  NodeHealth health;
  Probe(health, 0, FailedPrecondition("version 1 was unloaded"));
  EXPECT_THAT(health.status().message(), HasSubstr("version 1 was unloaded"));
  EXPECT_FALSE(health.skipped());
}

}  // namespace
}  // namespace engram::client
