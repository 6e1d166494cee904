// What becomes of log lines when stderr's reader stands still, and of lines without end.
#include "common/obs/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "common/obs/line_limit.h"

namespace engram::obs {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

// stderr is a pipe for as long as this lives.
class StderrPipe {
 public:
  StderrPipe() : saved_(::dup(STDERR_FILENO)) {
    EXPECT_EQ(::pipe2(ends_, O_CLOEXEC), 0);
    EXPECT_EQ(::fcntl(ends_[0], F_SETFL, O_NONBLOCK), 0);
    ::dup2(ends_[1], STDERR_FILENO);
  }
  ~StderrPipe() {
    CloseReader();
    EXPECT_TRUE(FlushLog(10s));
    ::dup2(saved_, STDERR_FILENO);
    ::close(saved_);
    ::close(ends_[1]);
  }
  void CloseReader() {
    if (ends_[0] >= 0) ::close(ends_[0]);
    ends_[0] = -1;
  }
  // Everything that is in the pipe.
  std::string Read() {
    std::string text(1 << 16, '\0');
    const ssize_t count = ::read(ends_[0], text.data(), text.size());
    text.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
    return text;
  }
  // Reads until `what` has come, for 10 s at most.
  std::string ReadUntil(const std::string& what) {
    const TimePoint deadline = Clock::Real().Now() + 10s;
    std::string text;
    while (text.find(what) == std::string::npos && Clock::Real().Now() < deadline) {
      pollfd entry = {ends_[0], POLLIN, 0};
      ::poll(&entry, 1, 100);
      text += Read();
    }
    return text;
  }

 private:
  int saved_;
  int ends_[2] = {-1, -1};
};

TEST(Log, RefusesAnUnknownLevel) {
  EXPECT_THAT(InitLog("t", "loud").message(), HasSubstr("log level 'loud'"));
  EXPECT_TRUE(InitLog("t", "off").ok());
  EXPECT_TRUE(InitLog("t", "warn").ok());
}

TEST(Log, AReaderThatTakesNothingHoldsNoCallerAndCostsTheOldestLines) {
  ASSERT_TRUE(InitLog("t", "debug").ok());
  StderrPipe pipe;
  const uint64_t dropped = GetLogFigures().dropped;
  for (size_t i = 0; i < 3 * kLogQueueMax; ++i) LogDebug("line " + std::to_string(i) + ".");
  EXPECT_GE(GetLogFigures().dropped - dropped, kLogQueueMax);
  EXPECT_FALSE(FlushLog(1ms));
  const std::string last = "line " + std::to_string(3 * kLogQueueMax - 1) + ".";
  EXPECT_THAT(pipe.ReadUntil(last), HasSubstr(last));
}

TEST(Log, AReaderThatHasGoneEndsNothing) {
  ASSERT_TRUE(InitLog("t", "debug").ok());
  StderrPipe pipe;
  pipe.CloseReader();
  const uint64_t dropped = GetLogFigures().dropped;
  LogDebug("to a closed pipe");
  EXPECT_TRUE(FlushLog(10s));
  EXPECT_EQ(GetLogFigures().dropped, dropped + 1);
}

TEST(Log, OnePlaceThatLogsWithoutEndIsSuppressedAndCounted) {
  ASSERT_TRUE(InitLog("t", "info").ok());
  StderrPipe pipe;
  const uint64_t suppressed = GetLogFigures().suppressed;
  const auto flood = [] {
    for (int i = 0; i < 10'000; ++i) LogWarn("garbage");
  };
  std::string text;
  std::jthread flooding(flood);
  flooding.join();
  LogWarn("another place");
  text = pipe.ReadUntil("another place");
  EXPECT_THAT(text, HasSubstr("another place"));
  EXPECT_GE(GetLogFigures().suppressed - suppressed, 9'000u);
}

TEST(Log, APeersLineBreaksDoNotBecomeLinesOfTheLog) {
  ASSERT_TRUE(InitLog("t", "info").ok());
  StderrPipe pipe;
  LogWarn("model=a\n2026-01-01T00:00:00.000 E t: forged\x1b[31m");
  const std::string text = pipe.ReadUntil("[31m");
  EXPECT_THAT(text, HasSubstr(R"(model=a\x0a2026-01-01T00:00:00.000 E t: forged\x1b[31m)"));
}

TEST(Log, AVeryLongLineIsCut) {
  ASSERT_TRUE(InitLog("t", "info").ok());
  StderrPipe pipe;
  LogWarn(std::string(10'000, 'x') + "end");
  const std::string text = pipe.ReadUntil("left out)");
  EXPECT_THAT(text, HasSubstr("... (5907 bytes left out)"));
  EXPECT_THAT(text, Not(HasSubstr("end")));
}

TEST(LineLimit, GivesEachPlaceABurstAndThenARate) {
  LineLimit limit(3, 2);
  const TimePoint start;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limit.Ask("a.cc", 1, start).write);
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(limit.Ask("a.cc", 1, start).write);
  EXPECT_TRUE(limit.Ask("a.cc", 2, start).write);
  EXPECT_TRUE(limit.Ask("b.cc", 1, start).write);
  EXPECT_FALSE(limit.Ask("a.cc", 1, start + 499ms).write);
  const LineLimit::Verdict later = limit.Ask("a.cc", 1, start + 500ms);
  EXPECT_TRUE(later.write);
  EXPECT_EQ(later.left_out, 6u);
  EXPECT_FALSE(limit.Ask("a.cc", 1, start + 500ms).write);
  EXPECT_EQ(limit.suppressed(), 7u);
  int written = 0;
  for (int i = 0; i < 10; ++i) written += limit.Ask("a.cc", 1, start + 1h).write;
  EXPECT_EQ(written, 3);  // a quiet hour saves up no more than a burst
}

}  // namespace
}  // namespace engram::obs
