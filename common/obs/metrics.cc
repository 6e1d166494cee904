#include "common/obs/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/metric_family.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

namespace engram::obs {
namespace {

class PromCounter : public Counter {
 public:
  explicit PromCounter(prometheus::Counter& metric) : metric_(metric) {}
  void Add(double n) override { metric_.Increment(n); }
  double Value() const override { return metric_.Value(); }

 private:
  prometheus::Counter& metric_;
};

class PromGauge : public Gauge {
 public:
  explicit PromGauge(prometheus::Gauge& metric) : metric_(metric) {}
  void Set(double value) override { metric_.Set(value); }
  void Add(double value) override { metric_.Increment(value); }
  double Value() const override { return metric_.Value(); }

 private:
  prometheus::Gauge& metric_;
};

// prometheus::Histogram takes a lock for each value; this one is observed for every request.
class AtomicHistogram : public Histogram {
 public:
  explicit AtomicHistogram(std::vector<double> bounds)
      : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

  void Observe(double value) override {
    const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
    counts_[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(value, std::memory_order_relaxed);
  }

  void Set(const Buckets& buckets) override {
    for (size_t i = 0; i < std::min(counts_.size(), buckets.counts.size()); ++i) {
      counts_[i].store(buckets.counts[i], std::memory_order_relaxed);
    }
    sum_.store(buckets.sum, std::memory_order_relaxed);
  }

  Buckets Value() const override {
    Buckets buckets(bounds_);
    for (size_t i = 0; i < counts_.size(); ++i) {
      buckets.counts[i] = counts_[i].load(std::memory_order_relaxed);
    }
    buckets.sum = sum_.load(std::memory_order_relaxed);
    return buckets;
  }

  prometheus::ClientMetric Collect(const Labels& labels) const {
    prometheus::ClientMetric metric;
    for (const auto& [name, value] : labels) metric.label.push_back({name, value});
    uint64_t below = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      below += counts_[i].load(std::memory_order_relaxed);
      const double bound =
          i < bounds_.size() ? bounds_[i] : std::numeric_limits<double>::infinity();
      metric.histogram.bucket.push_back({below, bound});
    }
    metric.histogram.sample_count = below;
    metric.histogram.sample_sum = sum_.load(std::memory_order_relaxed);
    return metric;
  }

 private:
  const std::vector<double> bounds_;
  std::vector<std::atomic<uint64_t>> counts_;  // by bucket; the last is beyond all bounds
  std::atomic<double> sum_ = 0;
};

std::vector<prometheus::MetricFamily> FamiliesOf(const std::vector<Sample>& samples) {
  std::map<std::string, prometheus::MetricFamily> families;
  for (const Sample& sample : samples) {
    const bool counter = sample.kind == Sample::Kind::kCounter;
    prometheus::MetricFamily& family = families[sample.name];
    family.name = sample.name;
    family.help = sample.help;
    family.type = counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    for (const auto& [name, value] : sample.labels) metric.label.push_back({name, value});
    (counter ? metric.counter.value : metric.gauge.value) = sample.value;
  }
  std::vector<prometheus::MetricFamily> all;
  for (auto& [name, family] : families) all.push_back(std::move(family));
  return all;
}

struct HistogramFamily {
  std::string help;
  std::map<Labels, AtomicHistogram> members;  // node-based, so references stay valid
};

}  // namespace

struct Metrics::State {
  prometheus::Registry registry;
  std::mutex mutex;
  // Wrappers by name, and labels; node-based, so references stay valid.
  std::map<std::pair<std::string, Labels>, PromCounter> counters;
  std::map<std::string, PromGauge> gauges;
  std::map<std::string, HistogramFamily> histograms;  // by name
};

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

Counter& Metrics::GetCounter(const std::string& name, const std::string& help,
                             const Labels& labels) {
  const std::lock_guard lock(state_->mutex);
  auto& family = prometheus::BuildCounter().Name(name).Help(help).Register(state_->registry);
  return state_->counters.try_emplace({name, labels}, family.Add(labels)).first->second;
}

Gauge& Metrics::GetGauge(const std::string& name, const std::string& help) {
  const std::lock_guard lock(state_->mutex);
  auto& family = prometheus::BuildGauge().Name(name).Help(help).Register(state_->registry);
  return state_->gauges.try_emplace(name, family.Add({})).first->second;
}

Histogram& Metrics::GetHistogram(const std::string& name, const std::string& help,
                                 const std::vector<double>& bounds, const Labels& labels) {
  const std::lock_guard lock(state_->mutex);
  HistogramFamily& family = state_->histograms[name];
  family.help = help;
  return family.members.try_emplace(labels, bounds).first->second;
}

std::string Metrics::Text(const std::vector<Sample>& now) const {
  std::vector<prometheus::MetricFamily> families = state_->registry.Collect();
  for (prometheus::MetricFamily& family : FamiliesOf(now)) families.push_back(std::move(family));
  const std::lock_guard lock(state_->mutex);
  for (const auto& [name, histograms] : state_->histograms) {
    prometheus::MetricFamily family;
    family.name = name;
    family.help = histograms.help;
    family.type = prometheus::MetricType::Histogram;
    for (const auto& [labels, histogram] : histograms.members) {
      family.metric.push_back(histogram.Collect(labels));
    }
    families.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace engram::obs
