// Whether one memory node answers, as the client's own probes and the lookups' deadlines tell: when
// to probe it next, when it counts as down, and when its lookups are not worth sending. The lookup
// loop's own; no threads, no clock.
//
// A probe is a lookup of one row with a deadline of its own, once a second; to a node that does not
// answer the next one goes out at once and waits twice as long, so that a stopped node has a few
// probes in its socket and not thousands. A miss is a deadline that passed while the node said
// nothing at all since the request was sent: a node that is busy is not down.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace engram::client {

inline constexpr Nanos kProbeEvery = std::chrono::seconds(1);
inline constexpr int kProbeDoublingsMax = 6;  // with a timeout of 1 s: one probe in 64 s

class NodeHealth {
 public:
  // Ok while the node answers, else why it does not count as up.
  const Status& status() const { return status_; }
  // Lookups end at once: one missed its deadline, or two probes in a row did.
  bool skipped() const { return skipped_; }

  bool probing() const { return probing_; }
  TimePoint probe_due() const { return due_; }  // while no probe is under way
  Nanos ProbeTimeout(Nanos first) const {
    return first * (1 << std::min(misses_, kProbeDoublingsMax));
  }

  void ProbeSent() { probing_ = true; }
  // There is no room for a probe: other requests are under way.
  void Postpone(TimePoint now) { due_ = now + kProbeEvery; }
  // `waited`: the probe's deadline. CANCELLED changes nothing.
  void ProbeEnded(const Status& status, Nanos waited, TimePoint now);
  // The node sent something in the round that began at `now`.
  void Heard(TimePoint now) { heard_ = now; }
  TimePoint last_heard() const { return heard_; }
  // A lookup sent at `sent` is over its deadline.
  void LookupMissed(TimePoint sent, TimePoint now);

 private:
  bool SilentSince(TimePoint sent) const { return heard_ <= sent; }

  Status status_;
  bool skipped_ = false;
  bool probing_ = false;
  int misses_ = 0;  // probes in a row
  TimePoint due_;   // the first one: at once
  TimePoint heard_;
};

}  // namespace engram::client
