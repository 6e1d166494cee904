// Interleaved rounds: every leg runs for a second, then all again in the opposite order, so that
// what disturbs the machine disturbs them alike. Figures are compared within a round only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/spread.h"
#include "common/base/status.h"
#include "common/obs/latency_histogram.h"
#include "tests/bench/harness/batch.h"

namespace engram::bench {

// What one leg did in one round.
struct Round {
  double seconds = 0;
  uint64_t rows = 0;
  obs::LatencyHistogram latency;  // of batches; empty where a leg has none

  double rows_per_s() const { return seconds > 0 ? static_cast<double>(rows) / seconds : 0; }
};

// Whatever answers batches: a store behind a socket, or a loop in this process.
class BatchReader {
 public:
  virtual ~BatchReader() = default;
  // Asks for a batch whose rows shall be put into `out`, one after the other, layer 0 first.
  virtual Status Begin(const Batch& batch, std::span<std::byte> out) = 0;
  // Returns when the rows of the oldest batch begun are all in place.
  virtual Status End() = 0;
};

struct LoopOptions {
  size_t rows = 3072;          // a batch
  size_t depth = 1;            // batches outstanding
  size_t verify_every = 64;    // every n-th row of a timed round is compared; 0: none
  bool verify_warm_up = true;  // all rows of the warm-up
};

// A closed loop over one reader, continuing its stream of ids from round to round.
class ReaderLoop {
 public:
  ReaderLoop(BatchReader& reader, const IdPool& pool, RowVerifier& verifier, size_t row_bytes,
             const LoopOptions& options);
  // DATA_LOSS at the first round with a wrong row; CANCELLED when interrupted.
  Result<Round> Run(double seconds, bool warm_up);

 private:
  BatchReader& reader_;
  const IdPool& pool_;
  RowVerifier& verifier_;
  const LoopOptions options_;
  std::vector<std::vector<std::byte>> out_;  // [depth][rows * row_bytes]
  uint64_t next_ = 0;
};

struct Leg {
  std::string name;
  std::function<Result<Round>(double seconds, bool warm_up)> run;
};

// A leg's figures, one entry a round.
struct Series {
  std::string name;
  std::vector<double> rows_per_s, p50_us, p99_us;
};

// Null when there is none of that name.
const Series* FindSeries(std::span<const Series> all, const std::string& name);

struct RoundOptions {
  int rounds = 12;
  double seconds = 1;
  double warm_up_seconds = 0.5;
};

Result<std::vector<Series>> RunRounds(std::span<const Leg> legs, const RoundOptions& options);

// Entry by entry: a[i] / b[i].
std::vector<double> Ratios(std::span<const double> a, std::span<const double> b);

}  // namespace engram::bench
