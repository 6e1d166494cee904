#include "common/obs/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

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

class PromHistogram : public Histogram {
 public:
  explicit PromHistogram(prometheus::Histogram& metric) : metric_(metric) {}
  void Observe(double value) override { metric_.Observe(value); }

 private:
  prometheus::Histogram& metric_;
};

}  // namespace

struct Metrics::State {
  prometheus::Registry registry;
  std::mutex mutex;
  // Wrappers by (name, labels); node-based, so references stay valid.
  std::map<std::pair<std::string, Labels>, PromCounter> counters;
  std::map<std::pair<std::string, Labels>, PromGauge> gauges;
  std::map<std::pair<std::string, Labels>, PromHistogram> histograms;
};

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

Counter& Metrics::GetCounter(const std::string& name, const std::string& help,
                             const Labels& labels) {
  const std::lock_guard lock(state_->mutex);
  auto& family = prometheus::BuildCounter().Name(name).Help(help).Register(state_->registry);
  return state_->counters.try_emplace({name, labels}, family.Add(labels)).first->second;
}

Gauge& Metrics::GetGauge(const std::string& name, const std::string& help, const Labels& labels) {
  const std::lock_guard lock(state_->mutex);
  auto& family = prometheus::BuildGauge().Name(name).Help(help).Register(state_->registry);
  return state_->gauges.try_emplace({name, labels}, family.Add(labels)).first->second;
}

Histogram& Metrics::GetHistogram(const std::string& name, const std::string& help,
                                 const std::vector<double>& bounds, const Labels& labels) {
  const std::lock_guard lock(state_->mutex);
  auto& family = prometheus::BuildHistogram().Name(name).Help(help).Register(state_->registry);
  return state_->histograms.try_emplace({name, labels}, family.Add(labels, bounds)).first->second;
}

std::string Metrics::Text() const {
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace engram::obs
