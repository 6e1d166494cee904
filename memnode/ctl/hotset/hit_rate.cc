#include "memnode/ctl/hotset/hit_rate.h"

#include <algorithm>
#include <utility>

namespace engram::ctl {
namespace {

double Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

// Sums up from the most frequent on.
class CurveBuilder {
 public:
  explicit CurveBuilder(HitRateCurve curve) : curve_(std::move(curve)) {}

  void Add(uint64_t seen, uint64_t held_out) {
    ++top_;
    seen_ += seen;
    held_out_ += held_out;
    if (top_ == next_) Record();
  }
  HitRateCurve Finish() {
    if (!curve_.points.empty() && curve_.points.back().top != top_) Record();
    return std::move(curve_);
  }

 private:
  void Record() {
    curve_.points.push_back(
        {top_, Share(seen_, curve_.seen_positions), Share(held_out_, curve_.held_out_positions)});
    // 1, 2, 5, 10, ...
    while (next_ <= top_) {
      next_ = leading_ == 2 ? next_ / 2 * 5 : next_ * 2;
      leading_ = leading_ == 1 ? 2 : leading_ == 2 ? 5 : 1;
    }
  }

  HitRateCurve curve_;
  uint64_t top_ = 0;
  uint64_t next_ = 1;
  int leading_ = 1;  // digit of next_
  uint64_t seen_ = 0;
  uint64_t held_out_ = 0;
};

void AddFigures(const OrderCounts& counts, HitRateCurve& curve) {
  curve.seen_positions += counts.seen.positions();
  curve.held_out_positions += counts.held_out.positions();
  curve.distinct += counts.seen.distinct();
  curve.count_error = std::max(curve.count_error, counts.seen.count_error());
  curve.held_out_error = std::max(curve.held_out_error, counts.held_out.count_error());
}

}  // namespace

void VisitByCount(const std::vector<const Ranking*>& rankings,
                  const std::function<bool(size_t ranking, const NgramCounter::Ranked&)>& visit) {
  std::vector<size_t> next(rankings.size());
  while (true) {
    size_t best = rankings.size();
    uint64_t best_count = 0;
    for (size_t i = 0; i < rankings.size(); ++i) {
      if (next[i] == rankings[i]->size() || (*rankings[i])[next[i]].count <= best_count) continue;
      best = i;
      best_count = (*rankings[i])[next[i]].count;
    }
    if (best == rankings.size() || !visit(best, (*rankings[best])[next[best]++])) return;
  }
}

HitRateCurve CurveOf(const OrderCounts& counts, const Ranking& ranking) {
  HitRateCurve curve;
  curve.order = counts.order;
  AddFigures(counts, curve);
  CurveBuilder builder(std::move(curve));
  for (const NgramCounter::Ranked& entry : ranking) {
    builder.Add(entry.count, counts.held_out.CountOf(counts.seen.NgramAt(entry.slot)));
  }
  return builder.Finish();
}

HitRateCurve JointCurve(const std::vector<OrderCounts>& counts,
                        const std::vector<Ranking>& rankings) {
  HitRateCurve curve;
  for (const OrderCounts& order : counts) AddFigures(order, curve);
  CurveBuilder builder(std::move(curve));
  std::vector<const Ranking*> all;
  for (const Ranking& ranking : rankings) all.push_back(&ranking);
  VisitByCount(all, [&](size_t i, const NgramCounter::Ranked& entry) {
    builder.Add(entry.count, counts[i].held_out.CountOf(counts[i].seen.NgramAt(entry.slot)));
    return true;
  });
  return builder.Finish();
}

}  // namespace engram::ctl
