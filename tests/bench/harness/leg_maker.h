// Legs that read one table: they share its stream of ids and the count of compared rows.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/bench/harness/rounds.h"
#include "tests/bench/harness/tables.h"

namespace engram::bench {

class LegMaker {
 public:
  // 2 M ids a layer, of rows of 1.1 GB together: far more than caches hold.
  static constexpr size_t kIdsPerLayer = size_t{1} << 21;

  explicit LegMaker(const Tables& tables);
  // A closed loop over `reader`. The leg does not outlive this.
  Leg Make(const std::string& name, std::unique_ptr<BatchReader> reader, const LoopOptions& loop);
  uint64_t verified() const { return verifier_.verified(); }

 private:
  const size_t row_bytes_;
  const IdPool pool_;
  RowVerifier verifier_;
  std::vector<std::unique_ptr<BatchReader>> readers_;
  std::vector<std::unique_ptr<ReaderLoop>> loops_;
};

}  // namespace engram::bench
