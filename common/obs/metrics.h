// Metrics in Prometheus' text format (prometheus-cpp core). Counters, gauges and histograms are
// made once, at start, and live as long as the registry; changing one is an atomic add. What comes
// and goes (a version, a node) has no gauge here, which would stay behind it: its figures are
// samples, made for each scrape. The only place that includes the library.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/obs/buckets.h"

namespace engram::obs {

using Labels = std::map<std::string, std::string>;

class Counter {
 public:
  virtual ~Counter() = default;
  virtual void Add(double n = 1) = 0;  // n >= 0
  virtual double Value() const = 0;
};

class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void Set(double value) = 0;
  virtual void Add(double value) = 0;
  virtual double Value() const = 0;
};

class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void Observe(double value) = 0;
  // Shows these counts, of the same bounds, from now on.
  virtual void Set(const Buckets& buckets) = 0;
  virtual Buckets Value() const = 0;
};

// One value as it is at a scrape. Samples of one name have the same help and kind, and no metric of
// the registry has that name.
struct Sample {
  enum class Kind { kGauge, kCounter };  // a counter never falls while its subject lives
  std::string name;
  std::string help;
  Kind kind = Kind::kGauge;
  Labels labels;
  double value = 0;
};

class Metrics {
 public:
  Metrics();
  ~Metrics();
  // Asking again for the same name and labels gives the same metric. Thread-safe.
  Counter& GetCounter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge& GetGauge(const std::string& name, const std::string& help);
  Histogram& GetHistogram(const std::string& name, const std::string& help,
                          const std::vector<double>& bounds, const Labels& labels = {});
  // The whole registry and `now`, text exposition format.
  std::string Text(const std::vector<Sample>& now = {}) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace engram::obs
