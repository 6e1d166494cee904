// Work under way at a node: found again, bounded, one at a time on the same thing, stopped.
#include "memnode/node/jobs.h"

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
  json::object End(const std::string& job) {
    while (true) {
      const auto seen = jobs_.Look(job);
      CHECK(seen.ok());
      if (seen->at("state") != "running") return *seen;
      std::this_thread::yield();
    }
  }

  Result<std::string> Start(const std::string& title, const std::vector<std::string>& subjects,
                            Jobs::Work work) {
    return jobs_.Start(title, title, subjects, std::move(work));
  }

  std::atomic<bool> go_ = false;
  Jobs jobs_;
};

TEST_F(JobsTest, AJobIsAskedAboutUntilItsResultIsThere) {
  const std::string job = *Start("import a", {}, Waiting());
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
  EXPECT_EQ(jobs_.Look(job + "1").status().code(), Code::kNotFound);
}

TEST_F(JobsTest, TheSameTitleIsTheSameJobWhileItRuns) {
  const std::string job = *Start("import a", {"a"}, Waiting());
  EXPECT_EQ(*Start("import a", {"a"}, Waiting()), job);
  go_ = true;
  End(job);
  EXPECT_NE(*Start("import a", {"a"}, Waiting()), job);
}

TEST_F(JobsTest, OneJobAtATimeWorksOnAThing) {
  const std::string job = *Start("import b", {"b", "its base"}, Waiting());
  const Status refused = Start("drop its base", {"its base"}, Waiting()).status();
  EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
  EXPECT_THAT(refused.message(), testing::AllOf(HasSubstr("cannot drop its base now"),
                                                HasSubstr("\"import b\" is under way")));
  EXPECT_TRUE(Start("import c", {"c"}, Waiting()).ok());
  go_ = true;
  End(job);
  EXPECT_TRUE(Start("drop its base", {"its base"}, Waiting()).ok());
}

TEST_F(JobsTest, FewRunAtOnceAndFewAreRemembered) {
  std::vector<std::string> first;
  for (size_t i = 0; i < Jobs::kRunningMax; ++i) {
    const auto started = Start(fmt::format("job {}", i), {}, Waiting());
    ASSERT_TRUE(started.ok());
    first.push_back(*started);
  }
  EXPECT_EQ(Start("one more", {}, Waiting()).status().code(), Code::kResourceExhausted);
  go_ = true;
  for (const std::string& job : first) End(job);
  std::string last;
  for (size_t i = 0; i < Jobs::kKeptMax + 1; ++i) {
    last = *Start(fmt::format("later {}", i), {}, Waiting());
    End(last);
  }
  EXPECT_EQ(jobs_.Look(first[0]).status().code(), Code::kNotFound);
  EXPECT_TRUE(jobs_.Look(last).ok());
}

TEST_F(JobsTest, ACancelledJobTellsItsError) {
  const std::string job = *Start("import a", {}, Waiting());
  ASSERT_TRUE(jobs_.Cancel(job).ok());
  const json::object ended = End(job);
  EXPECT_EQ(ended.at("state"), "failed");
  EXPECT_EQ(ended.at("error").at("message"), "stopped");
  EXPECT_EQ(ended.at("error").at("code"), static_cast<int>(Code::kCancelled));
  EXPECT_TRUE(jobs_.Cancel(job).ok()) << "too late is no error";
  EXPECT_EQ(jobs_.Cancel("77").code(), Code::kNotFound);
}

// Jobs of two runs never have one name: a tool would take the second's success for the first's.
TEST_F(JobsTest, AJobOfAnEarlierRunIsNotTakenForThisRunsOwn) {
  Jobs earlier;
  go_ = true;
  const std::string before = *earlier.Start("import big", "import big", {}, Waiting());
  const std::string now = *Start("import tiny", {}, Waiting());
  End(now);
  EXPECT_NE(before, now);
  EXPECT_TRUE(before.starts_with(earlier.instance() + "-")) << before;
  EXPECT_TRUE(now.starts_with(jobs_.instance() + "-")) << now;
  const Status asked = jobs_.Look(before).status();
  EXPECT_EQ(asked.code(), Code::kNotFound);
  EXPECT_THAT(asked.message(), testing::AllOf(HasSubstr("before this node was started again"),
                                              HasSubstr("run the same command again")));
  EXPECT_EQ(jobs_.Cancel(before).code(), Code::kNotFound);
  for (const std::string& guess : {std::string("1"), std::string(), jobs_.instance(),
                                   jobs_.instance() + "-", std::string(1000, 'a')}) {
    const Status guessed = jobs_.Look(guess).status();
    EXPECT_EQ(guessed.code(), Code::kNotFound) << guess;
    EXPECT_LT(guessed.message().size(), 300u);
  }
}

TEST(Jobs, ThatAreLeftAreStopped) {
  std::atomic<bool> stopped = false;
  {
    Jobs jobs;
    ASSERT_TRUE(jobs.Start("endless", "endless", {},
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
