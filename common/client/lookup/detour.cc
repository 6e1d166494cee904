// The part of the lookup loop that asks other owners for what a node does not bring.
#include <algorithm>
#include <utility>

#include "common/client/lookup/loop.h"

namespace engram::client {

// Asks other owners for the rows of `instead` that are missing. False: there is no other owner that
// answers, no time, or no room. True too where nothing is missing. `beside`: the request itself
// where it is still under way, null where it has failed.
bool LookupLoop::AskElsewhere(const StepRef& step, const Request& instead, Request* beside) {
  if (instead.tried_count + 1u >= context_->owners.replicas()) return false;
  if (stopping_.load() || step->deadline() <= now_) return false;
  NodeCosts costs = Costs(*view());
  const auto node = static_cast<uint16_t>(instead.plan().node);
  costs[node] = kCannotServe;
  for (uint8_t i = 0; i < instead.tried_count; ++i) costs[instead.tried[i]] = kCannotServe;
  const Result<std::span<const NodeRequest>> detour = step->MakeDetour(instead.plan(), costs);
  if (!detour.ok()) return false;
  const auto count = static_cast<uint32_t>(detour->size());
  {
    const std::lock_guard lock(mutex_);
    if (requests_under_way_.load() + count > options_.requests_max) return false;
    requests_under_way_.fetch_add(count);
  }
  (beside != nullptr ? hedges_sent_ : failovers_).fetch_add(count);
  // All are counted before the first one can end.
  const uint64_t beside_id = beside != nullptr ? beside->id : 0;
  if (beside != nullptr) beside->hedges += count;
  for (const NodeRequest& what : *detour) {
    Request& request = Take(step, what);
    request.hedge_of = beside_id;
    request.tried = instead.tried;
    request.tried[instead.tried_count] = node;
    request.tried_count = static_cast<uint8_t>(instead.tried_count + 1);
    const NodePaths& paths = *nodes_[what.node].view.paths;
    if (paths.Choose(what.rows) == Path::kLocal) {
      End(request, PlaceLocally(*step, what, paths, counters_[what.node]));
    } else {
      Queue(request);
    }
  }
  return true;
}

// Rows that a caller's thread could not copy.
void LookupLoop::TakeFailures() {
  for (const LocalFailure& failure : taken_failures_) {
    Request instead;
    instead.what = failure.what;
    if (!AskElsewhere(failure.step, instead, nullptr)) {
      failure.step->Fail(*failure.what, failure.why);
    }
  }
  taken_failures_.clear();
}

// Looks at the request when its node has been silent for so long since it was asked; never where
// its rows have no other owner, or another one is asked already.
void LookupLoop::LookAfter(Request& request, Nanos silence) {
  request.next_look = TimePoint::max();
  if (context_->owners.replicas() == 1 || request.hedged ||
      request.step->purpose() != Purpose::kCaller) {
    return;
  }
  const TimePoint last_heard = nodes_[request.plan().node].health.last_heard();
  request.next_look = std::max(last_heard, request.sent_at) + silence;
  next_deadline_ = std::min(next_deadline_, request.next_look);
}

// Once it is late the budget decides; before and afterwards, whether the node has stopped or the
// answer is lost. (What a node that was stopped answers when it goes on makes its usual time long.)
void LookupLoop::LookAtLate(Request& request, TimePoint now) {
  const uint32_t index = request.plan().node;
  const NodeHealth& health = nodes_[index].health;
  const Nanos silent = now - std::max(health.last_heard(), request.sent_at);
  const bool late = request.sent && now - request.sent_at >= LateAfter(nodes_[index]);
  const bool stopped = silent >= kStoppedAfter;
  if ((late || stopped) && health.last_heard() < request.sent_at &&
      nodes_[index].view.suspect_until <= now) {
    Suspect(index, now + kSuspectFor);
  }
  if (late && !std::exchange(request.late, true) && hedges_allowed_ >= 1) {
    hedges_allowed_ -= 1;
    Hedge(request);
  } else if (stopped) {
    HedgeAllOf(index);
  } else if (now - request.sent_at >=
             std::min(kLostAfter, (request.step->deadline() - request.sent_at) / 2)) {
    Hedge(request);
  } else {
    LookAfter(request, kStoppedAfter);
  }
}

// Where no other owner can be asked now, one may be later.
void LookupLoop::Hedge(Request& request) {
  const uint64_t id = request.id;
  request.hedged = true;
  request.next_look = TimePoint::max();
  if (AskElsewhere(request.step, request, &request) || requests_.Find(id) == nullptr) return;
  request.hedged = false;
  request.next_look = now_ + kStoppedAfter;
  next_deadline_ = std::min(next_deadline_, request.next_look);
}

void LookupLoop::HedgeAllOf(uint32_t node) {
  for (Request& request : requests_.slots()) {
    if (request.id == 0 || request.plan().node != node || request.hedged) continue;
    if (request.step->purpose() == Purpose::kCaller) Hedge(request);
  }
}

void LookupLoop::Suspect(uint32_t node, TimePoint until) {
  nodes_[node].view.suspect_until = until;
  PublishView();
}

}  // namespace engram::client
