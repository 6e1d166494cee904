#include "tests/bench/harness/leg_maker.h"

namespace engram::bench {

LegMaker::LegMaker(const Tables& tables)
    : row_bytes_(tables.row_bytes()),
      pool_(tables.layout, tables.spec.seed, kIdsPerLayer),
      verifier_(tables.layout, tables.spec.seed) {}

Leg LegMaker::Make(const std::string& name, std::unique_ptr<BatchReader> reader,
                   const LoopOptions& loop) {
  readers_.push_back(std::move(reader));
  loops_.push_back(
      std::make_unique<ReaderLoop>(*readers_.back(), pool_, verifier_, row_bytes_, loop));
  return {name, [raw = loops_.back().get()](double seconds, bool warm_up) {
            return raw->Run(seconds, warm_up);
          }};
}

}  // namespace engram::bench
