#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "common/base/rng.h"
#include "common/obs/latency_histogram.h"
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
  Histogram& seconds = metrics.GetHistogram("engram_seconds", "time", {0.1, 1.0});
  seconds.Observe(0.5);
  EXPECT_EQ(seconds.Value().bounds, (std::vector<double>{0.1, 1.0}));
  EXPECT_EQ(seconds.Value().counts, (std::vector<uint64_t>{0, 1, 0}));
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("engram_sessions 4"));
  EXPECT_THAT(text, HasSubstr("engram_seconds_bucket{le=\"1\"} 1"));
  EXPECT_THAT(text, HasSubstr("engram_seconds_bucket{le=\"0.1\"} 0"));
}

TEST(Metrics, AVersionsGaugeIsGoneWithTheVersion) {
  using Kind = Sample::Kind;
  const Metrics metrics;
  const std::string both =
      metrics.Text({{"engram_bytes", "bytes", Kind::kGauge, {{"version", "1"}}, 5},
                    {"engram_reads_total", "reads", Kind::kCounter, {{"version", "1"}}, 7},
                    {"engram_bytes", "bytes", Kind::kGauge, {{"version", "2"}}, 6}});
  EXPECT_THAT(both, HasSubstr("# TYPE engram_bytes gauge\nengram_bytes{version=\"1\"} 5\n"
                              "engram_bytes{version=\"2\"} 6\n"));
  EXPECT_THAT(both, HasSubstr("# TYPE engram_reads_total counter\n"
                              "engram_reads_total{version=\"1\"} 7\n"));
  const std::string one =
      metrics.Text({{"engram_bytes", "bytes", Kind::kGauge, {{"version", "2"}}, 6}});
  EXPECT_THAT(one, testing::Not(HasSubstr("version=\"1\"")));
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

TEST(LatencyHistogram, QuantilesAreWithinOneBucketOfTheSortedValues) {
  Rng rng(5);
  auto histogram = std::make_unique<LatencyHistogram>();
  auto other = std::make_unique<LatencyHistogram>();
  std::vector<uint64_t> values;
  for (int i = 0; i < 50000; ++i) {
    values.push_back(rng.NextU64() >> (rng.NextBelow(60) + 4));
    (i % 2 == 0 ? histogram : other)->Record(values.back());
  }
  histogram->Merge(*other);
  std::sort(values.begin(), values.end());
  for (const double q : {0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto exact = values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
    const uint64_t found = histogram->QuantileNs(q);
    EXPECT_GE(found, exact) << q;
    EXPECT_LE(static_cast<double>(found - exact), static_cast<double>(exact) / 64 + 1) << q;
  }
  EXPECT_EQ(histogram->max_ns(), values.back());
  EXPECT_EQ(histogram->total(), 50000u);
}

}  // namespace
}  // namespace engram::obs
