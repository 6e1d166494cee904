// From counts to curves and to what is kept: n-grams of all orders, ranked.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "memnode/ctl/hotset/hotset_maker.h"
#include "memnode/ctl/hotset/ngram_counter.h"

namespace engram::ctl {

// The n-grams of one order: of the text that counts, and of the text held out.
struct OrderCounts {
  int order = 0;
  NgramCounter seen;
  NgramCounter held_out;
};

using Ranking = std::vector<NgramCounter::Ranked>;

// Visits the entries of all rankings by falling count, the earlier ranking first among equals,
// until `visit` returns false.
void VisitByCount(const std::vector<const Ranking*>& rankings,
                  const std::function<bool(size_t ranking, const NgramCounter::Ranked&)>& visit);

HitRateCurve CurveOf(const OrderCounts& counts, const Ranking& ranking);
// Of all orders together: counts[i] is ranked by rankings[i].
HitRateCurve JointCurve(const std::vector<OrderCounts>& counts,
                        const std::vector<Ranking>& rankings);

}  // namespace engram::ctl
