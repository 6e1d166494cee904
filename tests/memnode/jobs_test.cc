// Work under way at a node: found again, bounded, one at a time on the same thing, stopped.
#include "memnode/jobs.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

namespace engram::memnode {
namespace {

using testing::HasSubstr;

class JobsTest : public testing::Test {
 protected:
  // Runs until it is let go or cancelled.
  Jobs::Work Waiting() {
    return [this](JobContext& context) -> Result<json::object> {
      while (!go_ && !context.cancelled()) std::this_thread::yield();
      context.Tell(3, 4, 5);
      if (context.cancelled()) return Cancelled("stopped");
      return json::object{{"rows", 7}};
    };
  }
  json::object End(uint64_t job) {
    while (true) {
      const auto seen = jobs_.Look(job);
      CHECK(seen.ok());
      if (seen->at("state") != "running") return *seen;
      std::this_thread::yield();
    }
  }

  std::atomic<bool> go_ = false;
  Jobs jobs_;
};

TEST_F(JobsTest, AJobIsAskedAboutUntilItsResultIsThere) {
  const uint64_t job = *jobs_.Start("import a", {}, Waiting());
  EXPECT_EQ(jobs_.Look(job)->at("state"), "running");
  EXPECT_FALSE(jobs_.Look(job)->contains("result"));
  go_ = true;
  const json::object ended = End(job);
  EXPECT_EQ(ended.at("state"), "done");
  EXPECT_EQ(ended.at("title"), "import a");
  EXPECT_EQ(ended.at("result"), json::value({{"rows", 7}}));
  EXPECT_EQ(ended.at("done"), 3);
  EXPECT_EQ(ended.at("total"), 4);
  EXPECT_EQ(ended.at("bytes"), 5);
  EXPECT_EQ(jobs_.Look(job + 1).status().code(), Code::kNotFound);
}

TEST_F(JobsTest, TheSameTitleIsTheSameJobWhileItRuns) {
  const uint64_t job = *jobs_.Start("import a", {"a"}, Waiting());
  EXPECT_EQ(*jobs_.Start("import a", {"a"}, Waiting()), job);
  go_ = true;
  End(job);
  EXPECT_NE(*jobs_.Start("import a", {"a"}, Waiting()), job);
}

TEST_F(JobsTest, OneJobAtATimeWorksOnAThing) {
  const uint64_t job = *jobs_.Start("import b", {"b", "its base"}, Waiting());
  const Status refused = jobs_.Start("drop its base", {"its base"}, Waiting()).status();
  EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
  EXPECT_THAT(refused.message(), testing::AllOf(HasSubstr("cannot drop its base now"),
                                                HasSubstr("\"import b\" is under way")));
  EXPECT_TRUE(jobs_.Start("import c", {"c"}, Waiting()).ok());
  go_ = true;
  End(job);
  EXPECT_TRUE(jobs_.Start("drop its base", {"its base"}, Waiting()).ok());
}

TEST_F(JobsTest, FewRunAtOnceAndFewAreRemembered) {
  for (size_t i = 0; i < Jobs::kRunningMax; ++i) {
    ASSERT_TRUE(jobs_.Start(fmt::format("job {}", i), {}, Waiting()).ok());
  }
  EXPECT_EQ(jobs_.Start("one more", {}, Waiting()).status().code(), Code::kResourceExhausted);
  go_ = true;
  for (uint64_t id = 1; id <= Jobs::kRunningMax; ++id) End(id);
  uint64_t last = 0;
  for (size_t i = 0; i < Jobs::kKeptMax + 1; ++i) {
    last = *jobs_.Start(fmt::format("later {}", i), {}, Waiting());
    End(last);
  }
  EXPECT_EQ(jobs_.Look(1).status().code(), Code::kNotFound);
  EXPECT_TRUE(jobs_.Look(last).ok());
}

TEST_F(JobsTest, ACancelledJobTellsItsError) {
  const uint64_t job = *jobs_.Start("import a", {}, Waiting());
  ASSERT_TRUE(jobs_.Cancel(job).ok());
  const json::object ended = End(job);
  EXPECT_EQ(ended.at("state"), "failed");
  EXPECT_EQ(ended.at("error").at("message"), "stopped");
  EXPECT_EQ(ended.at("error").at("code"), static_cast<int>(Code::kCancelled));
  EXPECT_TRUE(jobs_.Cancel(job).ok()) << "too late is no error";
  EXPECT_EQ(jobs_.Cancel(77).code(), Code::kNotFound);
}

TEST(Jobs, ThatAreLeftAreStopped) {
  std::atomic<bool> stopped = false;
  {
    Jobs jobs;
    ASSERT_TRUE(jobs.Start("endless", {},
                           [&](JobContext& context) -> Result<json::object> {
                             while (!context.cancelled()) std::this_thread::yield();
                             stopped = true;
                             return json::object();
                           })
                    .ok());
  }
  EXPECT_TRUE(stopped);
}

}  // namespace
}  // namespace engram::memnode
