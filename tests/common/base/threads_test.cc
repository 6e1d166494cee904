#include "common/base/threads.h"

#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <latch>

namespace engram {
namespace {

using testing::HasSubstr;

TEST(Threads, RunTheBodyOnEach) {
  std::latch all(5);
  std::atomic<int> ran = 0;
  const ThreadsRun run = RunOnThreads(5, "test", [&] {
    all.arrive_and_wait();  // ends only when five run at once
    ++ran;
  });
  EXPECT_EQ(run.count, 5u);
  EXPECT_TRUE(run.shortage.ok());
  EXPECT_EQ(ran, 5);
}

// In a child of a user of its own, which may have no thread besides its first.
int UnderThreadLimit(int (*body)()) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::getuid() == 0) {  // root has no limit
      const auto user = static_cast<uid_t>(70'000 + ::getpid());
      if (::setgroups(0, nullptr) != 0 || ::setuid(user) != 0) ::_exit(99);
    }
    const rlimit one = {1, 1};
    if (::setrlimit(RLIMIT_NPROC, &one) != 0) ::_exit(99);
    ::_exit(body());
  }
  int state = 0;
  ::waitpid(child, &state, 0);
  return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

TEST(Threads, AtTheLimitTheCallerDoesTheWorkAlone) {
  EXPECT_EQ(UnderThreadLimit([] {
              int ran = 0;
              const ThreadsRun run = RunOnThreads(64, "test", [&] { ++ran; });
              const bool good =
                  run.count == 1 && ran == 1 && run.shortage.code() == Code::kResourceExhausted;
              return good ? 0 : 1;
            }),
            0);
}

TEST(Threads, OneThatCannotStartIsAnErrorThatNamesTheLimit) {
  EXPECT_EQ(UnderThreadLimit([] {
              const Result<std::thread> started = StartThread("rows", [] {});
              if (started.ok()) return 1;
              const std::string why = started.status().message();
              return why.find("cannot start a thread for rows") == 0 &&
                             why.find("ulimit -u is 1") != std::string::npos
                         ? 0
                         : 2;
            }),
            0);
}

}  // namespace
}  // namespace engram
