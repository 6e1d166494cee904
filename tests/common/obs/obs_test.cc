#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "common/obs/log.h"
#include "common/obs/metrics.h"

namespace engram::obs {
namespace {

using testing::HasSubstr;

TEST(Metrics, SameNameAndLabelsIsTheSameMetric) {
  Metrics metrics;
  Counter& a = metrics.GetCounter("engram_rows_total", "rows", {{"layer", "1"}});
  Counter& b = metrics.GetCounter("engram_rows_total", "rows", {{"layer", "2"}});
  EXPECT_EQ(&a, &metrics.GetCounter("engram_rows_total", "rows", {{"layer", "1"}}));
  EXPECT_NE(&a, &b);
  a.Add(3);
  b.Add();
  EXPECT_THAT(metrics.Text(), HasSubstr("engram_rows_total{layer=\"1\"} 3"));
  EXPECT_THAT(metrics.Text(), HasSubstr("engram_rows_total{layer=\"2\"} 1"));
}

TEST(Metrics, GaugesAndHistogramsAppearInTheText) {
  Metrics metrics;
  metrics.GetGauge("engram_sessions", "open sessions").Set(4);
  metrics.GetHistogram("engram_seconds", "time", {0.1, 1.0}).Observe(0.5);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("engram_sessions 4"));
  EXPECT_THAT(text, HasSubstr("engram_seconds_bucket{le=\"1\"} 1"));
  EXPECT_THAT(text, HasSubstr("engram_seconds_bucket{le=\"0.1\"} 0"));
}

TEST(Metrics, CountsFromSeveralThreadsAddUp) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      Counter& counter = metrics.GetCounter("engram_total", "n");
      for (int i = 0; i < 1000; ++i) counter.Add();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(metrics.GetCounter("engram_total", "n").Value(), 4000);
}

TEST(Log, RefusesAnUnknownLevel) {
  EXPECT_THAT(InitLog("t", "loud").message(), HasSubstr("log level 'loud'"));
  EXPECT_TRUE(InitLog("t", "off").ok());
  EXPECT_TRUE(InitLog("t", "warn").ok());
}

}  // namespace
}  // namespace engram::obs
