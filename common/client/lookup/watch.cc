// The watching half of the lookup loop: probes every open node, skips one that does not answer, and
// logs each change.
#include <fmt/format.h>

#include "common/base/rng.h"
#include "common/client/lookup/loop.h"
#include "common/obs/log.h"

namespace engram::client {
namespace {

constexpr uint64_t kProbeSeed = 20261129;

}  // namespace

// A row of each node, of the first partition it owns.
void LookupLoop::ChooseProbes() {
  for (uint32_t layer = 0; layer < context_->partitions.size(); ++layer) {
    const table::LayerPartitions& cut = context_->partitions[layer];
    for (uint32_t partition = 0; partition < cut.partition_count; ++partition) {
      for (const uint16_t owner : context_->owners.Of(layer, partition)) {
        Probe& probe = nodes_[owner].probe;
        if (!probe.bytes.empty()) continue;
        Rng rng(Mix64(kProbeSeed, partition));
        probe.layer_index = layer;
        probe.row = cut.FirstRow(partition) + rng.NextBelow(cut.RowCount(partition));
        probe.bytes.resize(context_->layout.row_format.row_bytes());
      }
    }
  }
}

// A node whose rows are read out of mapped memory serves them even while it stands still.
bool LookupLoop::NeedsProbes(const Node& node) const {
  return !node.probe.bytes.empty() &&
         node.view.paths->Choose(context_->request_rows_max) != Path::kLocal;
}

void LookupLoop::SendProbes(TimePoint now) {
  next_probe_ = now + kProbeEvery;
  for (uint32_t index = 0; index < nodes_.size(); ++index) {
    const Node& node = nodes_[index];
    if (!node.open || node.health.probing() || !NeedsProbes(node)) continue;
    if (now >= node.health.probe_due()) SendProbe(index, now);
    if (!node.health.probing()) next_probe_ = std::min(next_probe_, node.health.probe_due());
  }
}

void LookupLoop::SendProbe(uint32_t index, TimePoint now) {
  Node& node = nodes_[index];
  {
    const std::lock_guard lock(mutex_);
    if (requests_under_way_.load() >= options_.requests_max) return node.health.Postpone(now);
    requests_under_way_.fetch_add(1);
  }
  Probe& probe = node.probe;
  probe.timeout = node.health.ProbeTimeout(options_.probe_timeout);
  const StepRef step = steps_->Take();
  const LayerLookup lookup = {probe.layer_index, {&probe.row, 1}, probe.bytes};
  const Status planned = step->Plan({&lookup, 1}, SubmitOptions(now + probe.timeout),
                                    Purpose::kProbe, CostsOfOnly(index));
  CHECK(planned.ok() && step->plan().requests().size() == 1) << planned.message();
  // The way of large requests: of all it needs the node most.
  step->plan().requests()[0].path = node.view.paths->Choose(context_->request_rows_max);
  node.health.ProbeSent();
  Queue(Take(step, step->plan().requests()[0]));
}

void LookupLoop::ProbeEnded(uint32_t index, const Status& why) {
  Node& node = nodes_[index];
  if (!node.open) return;
  node.health.ProbeEnded(why, node.probe.timeout, now_);
  next_probe_ = std::min(next_probe_, node.health.probe_due());
  TellHealth(index);
}

void LookupLoop::LookupMissed(uint32_t index, TimePoint sent) {
  Node& node = nodes_[index];
  if (options_.probe_timeout == Nanos::zero() || !node.open) return;
  node.health.LookupMissed(sent, now_);
  next_probe_ = std::min(next_probe_, node.health.probe_due());
  TellHealth(index);
}

// Tells the other threads, and the log, what is new of the node; ends what it would not answer.
void LookupLoop::TellHealth(uint32_t index) {
  Node& node = nodes_[index];
  const Status status = node.health.status();
  const bool was_up = node.view.health.ok();
  const bool was_skipped = !node.view.skipped.ok();
  if (was_up == status.ok() && was_skipped == node.health.skipped() &&
      node.view.health.message() == status.message()) {
    return;
  }
  node.view.health = status;
  node.view.skipped =
      node.health.skipped()
          ? Unavailable(status.message() + "; it is skipped until it answers a probe")
          : OkStatus();
  PublishView();
  if (was_up && !status.ok()) {
    obs::LogWarn(
        fmt::format("memory node is down node=\"{}\" why={}", node.label, status.message()));
  } else if (!was_up && status.ok()) {
    obs::LogWarn(fmt::format("memory node is up again node=\"{}\"", node.label));
  }
  if (was_skipped || !node.health.skipped()) return;
  const Status skipped = node.view.skipped;
  for (Request& request : requests_.slots()) {
    if (request.id == 0 || request.plan().node != index) continue;
    if (request.step->purpose() == Purpose::kCaller) End(request, skipped);
  }
}

}  // namespace engram::client
