// The ratios by which the rows bench is judged, and the names of the legs they are made of. Each
// is computed round by round; its median is what counts.
// Every client has a thread of its own, as the engine's.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/io/json.h"
#include "tests/bench/harness/ceilings.h"
#include "tests/bench/harness/rounds.h"

namespace engram::bench {

inline constexpr char kMemoryCopy[] = "memory copy";
inline constexpr char kBareGather[] = "bare gather";
inline constexpr char kBareAhead[] = "bare gather, 24 rows ahead";
inline constexpr char kBareTogether[] = "bare gather, 64 rows together";
// The same on the core that serves: two cores of one virtual machine differ by a half for minutes.
inline constexpr char kServerGather[] = "bare gather on the server's core";
inline constexpr char kServerAhead[] = "bare gather on the server's core, 24 rows ahead";
inline constexpr char kServerTogether[] = "bare gather on the server's core, 64 rows together";
inline constexpr char kInProcess[] = "in-process gather";
inline constexpr char kShared[] = "shared memory, step";
inline constexpr char kSharedToken[] = "shared memory, token";
inline constexpr char kService[] = "service, step";
inline constexpr char kServiceToken[] = "service, token";
inline constexpr char kNoGather[] = "service without gather, step";
inline constexpr char kRoundTrip[] = "bare round trip, step";
inline constexpr char kRoundTripToken[] = "bare round trip, token";
inline constexpr char kUcx[] = "ucx_perftest am_bw, step";

struct RatioRow {
  std::string name;
  Spread value;
  double bar = 0;        // 0: none
  bool at_least = true;  // else at most
  std::string unit;      // "" for a ratio

  bool met() const { return at_least ? value.median >= bar : value.median <= bar; }
};

struct Judgement {
  std::vector<RatioRow> rows;
  std::vector<BoundedLeg> bounded;  // those of `rows` whose second leg is a ceiling
};

// Those whose legs ran, with `depth` steps outstanding at the service. `compared`: rows of the
// timed rounds were compared with what they must be. The ceiling "bare gather" is, in each round,
// the faster of the two bare loops: which one is depends on what the TLB misses cost meanwhile.
Judgement JudgeRatios(std::span<const Series> all, size_t depth, bool compared);

void PrintRatios(std::span<const RatioRow> ratios);
json::array RatiosJson(std::span<const RatioRow> ratios);

}  // namespace engram::bench
