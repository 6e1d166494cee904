// What a load run is asked to do. Filled by command_line.cc, checked there; every part of the
// tester takes the piece it needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/client/row_source.h"
#include "common/table/procedural.h"

namespace engram::memnode::load {

// One step: the rows of all Engram layers for `sequences` sequences of `tokens` tokens each.
struct StepShape {
  int64_t sequences = 1;
  int64_t tokens = 64;
  size_t positions() const { return static_cast<size_t>(sequences * tokens); }
};
inline constexpr size_t kPositionsMax = 65536;  // of one step

// Where the tables are, and with them the right bytes.
struct TableOptions {
  std::string model_dir;             // config.json, token map, and for verifying the table shards
  std::string model_name;            // default: the folder's name
  std::string model_version;         // empty: the published one
  table::ProceduralSpec procedural;  // used where its layout is not empty
};

enum class SourceKind : uint8_t { kUniform, kZipf, kText, kTrace };

struct SourceOptions {
  SourceKind kind = SourceKind::kUniform;
  double theta = 0.99;                 // of zipf
  uint64_t zipf_ngrams = 100'000'000;  // the population that zipf draws from
  std::vector<std::string> text_files;
  std::string trace_file;
  std::string record_file;  // what was asked, for --trace; empty = none
  uint64_t seed = 1;
  int64_t pool_mib = 128;  // row ids made ahead of time; a longer run repeats them
};

enum class Arrivals : uint8_t { kClosed, kConstant, kPoisson };

struct RunSettings {
  Arrivals arrivals = Arrivals::kClosed;
  double steps_per_s = 0;        // open loop
  int64_t outstanding = 2;       // steps; in a closed loop always, in an open one at most
  double warm_up_seconds = 0.5;  // verified, not counted
  double seconds = 5;
  int64_t deadline_ms = 2000;  // of a step, from when it was sent
  client::Priority priority = client::Priority::kDecode;
  double verify_rate = 1;  // share of the steps whose rows are compared; 0 = none
  Nanos slip_tolerance = std::chrono::microseconds(50);
  std::vector<double> layer_deadlines_us;  // from the intended time, by layer; empty = none
  uint64_t seed = 1;
  bool keep_steps = false;    // one by one, for --steps
  int64_t buffer_mib = 1024;  // rows of steps outstanding or being verified
};

struct KneeOptions {
  bool enabled = false;
  double p99_us = 1000;
  double low_steps_per_s = 0;   // 0: a hundredth of what a closed loop reached
  double high_steps_per_s = 0;  // 0: what a closed loop reached
  int64_t probes_max = 12;
  double resolution = 0.03;  // stops when the bounds are this close, relatively
};

struct SweepOptions {
  std::vector<double> rates;    // steps/s, open loop each
  std::vector<int64_t> tokens;  // a sequence's tokens a step, closed loop each
};

struct ServiceOptions {
  std::vector<std::string> memnodes;  // "host:port"; empty = rows made or read in this process
  std::vector<std::string> sets;      // settings of the lookup client, "lookup.path=gather"
};

struct LoadOptions {
  TableOptions tables;
  ServiceOptions service;
  SourceOptions source;
  StepShape shape;
  RunSettings run;
  int64_t depth = 2;  // steps outstanding in closed loops
  KneeOptions knee;
  SweepOptions sweep;
  std::vector<std::string> node_metrics;  // host:port of every node's /metrics
  std::string json_file;
  std::string steps_file;  // of one run at one rate
  std::string plot_file;
  bool progress = false;  // also where stderr is no terminal
  std::string command_line;
};

}  // namespace engram::memnode::load
