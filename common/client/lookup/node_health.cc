#include "common/client/lookup/node_health.h"

#include <fmt/format.h>

namespace engram::client {
namespace {

constexpr int kMissesUntilSkipped = 2;

int64_t Millis(Nanos time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

}  // namespace

void NodeHealth::ProbeEnded(const Status& status, Nanos waited, TimePoint now) {
  probing_ = false;
  if (status.code() == Code::kCancelled) return;
  const bool late = status.code() == Code::kDeadlineExceeded;
  if (late && SilentSince(now - waited)) {
    ++misses_;
    status_ = Unavailable(fmt::format("does not answer: no row in {} ms", Millis(waited)));
    skipped_ = skipped_ || misses_ >= kMissesUntilSkipped;
    due_ = now;
    return;
  }
  misses_ = 0;
  skipped_ = false;
  due_ = late ? now : now + kProbeEvery;
  // Out of room, or late while it answers others: busy.
  const bool busy = late || status.code() == Code::kResourceExhausted;
  status_ = status.ok() || busy
                ? OkStatus()
                : Status(status.code(), "answers with an error: " + status.message());
}

void NodeHealth::LookupMissed(TimePoint sent, TimePoint now) {
  if (!SilentSince(sent)) return;
  skipped_ = true;
  status_ = Unavailable(
      fmt::format("does not answer: it let a lookup's deadline of {} ms pass", Millis(now - sent)));
  if (!probing_) due_ = now;
}

}  // namespace engram::client
