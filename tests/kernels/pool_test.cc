// One loop on several threads: every item once, on any thread.
#include "kernels/pool.h"

#include <gtest/gtest.h>

#include <numeric>

namespace engram::kernels {
namespace {

TEST(Pool, CoversEveryIndexOnceWhateverTheSizeAndGrain) {
  for (const int threads : {1, 2, 3, 8}) {
    Pool pool(threads);
    for (const int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {1, 3, 64}) {
        std::vector<std::atomic<int>> times(static_cast<size_t>(count));
        pool.Run(count, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++times[static_cast<size_t>(i)];
        });
        for (const auto& one : times) ASSERT_EQ(one, 1) << threads << " " << count << " " << grain;
      }
    }
  }
}

TEST(Pool, HandsOutEveryIndexOnce) {
  Pool pool(3);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::atomic<int>> times(100);
    pool.HandOut(100, [&](int64_t i, int64_t) { ++times[i]; });
    for (const auto& one : times) ASSERT_EQ(one, 1);
  }
}

// The thread that begins with the first task holds on to it until all others are done, most of them
// out of its own part.
TEST(Pool, ThreadsTakeWhatABusyOneHasNotBegun) {
  Pool pool(2);
  if (pool.threads() == 1) GTEST_SKIP() << "the machine gives no second thread";
  std::atomic<int> done{0};
  pool.HandOut(100, [&](int64_t i, int64_t) {
    while (i == 0 && done < 99) std::this_thread::yield();
    ++done;
  });
  EXPECT_EQ(done, 100);
}

// What the threads expect to read is gone before they ask for it, in most rounds.
TEST(Pool, ManySmallLoopsOneAfterTheOtherLoseNothing) {
  Pool pool(4);
  std::vector<int64_t> sums(4);
  for (int64_t round = 0; round < 20'000; ++round) {
    const std::vector<std::byte> gone(round % 5000);
    for (int share = 0; share < pool.threads(); ++share) pool.Expect(share, gone);
    pool.Run(4, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sums[static_cast<size_t>(i)] += round;
    });
  }
  for (const int64_t sum : sums) EXPECT_EQ(sum, 20'000 * 19'999 / 2);
}

// Most workers are not running when a loop begins: the caller takes their shares.
TEST(Pool, MoreThreadsThanCoresFinish) {
  Pool pool(Pool::kThreadsMax);
  std::atomic<int64_t> sum{0};
  for (int round = 0; round < 200; ++round) {
    pool.Run(Pool::kThreadsMax, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sum += i;
    });
  }
  EXPECT_EQ(sum, 200 * 63 * 64 / 2);
}

}  // namespace
}  // namespace engram::kernels
