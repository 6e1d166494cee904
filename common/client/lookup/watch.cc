// The watching half of the lookup loop: probes every node, skips one that does not answer, and logs
// each change.
#include <fmt/format.h>

#include "common/base/rng.h"
#include "common/client/lookup/loop.h"
#include "common/obs/log.h"

namespace engram::client {
namespace {

constexpr uint64_t kProbeSeed = 20261129;

}  // namespace

void LookupLoop::WatchNodes(std::shared_ptr<const PlanContext> context, Nanos probe_timeout) {
  CHECK(!options_.caller_driven) << "without a thread nothing is probed";
  probe_timeout_ = probe_timeout;
  probes_.resize(nodes_.size());
  for (uint32_t layer = 0; layer < context->owners.size(); ++layer) {
    for (uint32_t partition = 0; partition < context->owners[layer].size(); ++partition) {
      Probe& probe = probes_[context->owners[layer][partition]];
      if (!probe.bytes.empty()) continue;
      const table::LayerPartitions& cut = context->partitions[layer];
      Rng rng(Mix64(kProbeSeed, partition));
      probe.layer_index = layer;
      probe.row = cut.FirstRow(partition) + rng.NextBelow(cut.RowCount(partition));
      probe.bytes.resize(context->layout.row_format.row_bytes());
    }
  }
  probe_context_ = std::move(context);
  watching_.store(true);
}

Status LookupLoop::NodeStatus(size_t node) const {
  const std::lock_guard lock(mutex_);
  return gone_[node].ok() ? down_[node] : gone_[node];
}

void LookupLoop::SendProbes(TimePoint now) {
  next_probe_ = now + kProbeEvery;
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    if (probes_[node].bytes.empty() || health_[node].probing() || !Gone(node).ok()) continue;
    if (now >= health_[node].probe_due()) SendProbe(node, now);
    if (!health_[node].probing()) next_probe_ = std::min(next_probe_, health_[node].probe_due());
  }
}

void LookupLoop::SendProbe(uint32_t node, TimePoint now) {
  {
    const std::lock_guard lock(mutex_);
    if (requests_under_way_.load() >= options_.requests_max) return health_[node].Postpone(now);
    requests_under_way_.fetch_add(1);
  }
  Probe& probe = probes_[node];
  probe.timeout = health_[node].ProbeTimeout(probe_timeout_);
  const StepRef step = probe_pool_->Take(probe_context_);
  const LayerLookup lookup = {probe.layer_index, {&probe.row, 1}, probe.bytes};
  const Status planned = step->Plan({&lookup, 1}, SubmitOptions(now + probe.timeout));
  CHECK(planned.ok() && step->requests().size() == 1) << planned.message();
  step->MarkProbe();
  // The way of large requests: of all it needs the node most.
  NodeRequest& request = step->requests()[0];
  request.path = nodes_[node].paths.Choose(probe_context_->request_rows_max);
  request.served = false;
  health_[node].ProbeSent();
  Queue(step, 0);
}

void LookupLoop::ProbeEnded(uint32_t node, const Status& why) {
  if (!Gone(node).ok()) return;
  health_[node].ProbeEnded(why, probes_[node].timeout, now_);
  next_probe_ = std::min(next_probe_, health_[node].probe_due());
  TellHealth(node);
}

void LookupLoop::LookupMissed(uint32_t node, TimePoint sent) {
  health_[node].LookupMissed(sent, now_);
  next_probe_ = std::min(next_probe_, health_[node].probe_due());
  TellHealth(node);
}

// Tells the other threads, and the log, what is new of the node; ends what it would not answer.
void LookupLoop::TellHealth(uint32_t node) {
  const NodeHealth& health = health_[node];
  const std::string& label = nodes_[node].label;
  const bool begins_skipping = health.skipped() && !skipped_here_[node];
  skipped_here_[node] = health.skipped();
  bool was_up = false;
  {
    const std::lock_guard lock(mutex_);
    was_up = down_[node].ok();
    down_[node] = health.status();
    skip_[node] = health.skipped();
  }
  if (was_up && !health.status().ok()) {
    obs::LogWarn(
        fmt::format("memory node is down node=\"{}\" why={}", label, health.status().message()));
  } else if (!was_up && health.status().ok()) {
    obs::LogWarn(fmt::format("memory node is up again node=\"{}\"", label));
  }
  if (!begins_skipping) return;
  const Status skipped = Skipped(health.status());
  for (Request& request : slots_) {
    const bool waits = request.id != 0 && request.plan().node == node && !request.step->probe();
    if (waits && request.plan().path != Path::kLocal) End(request, skipped);
  }
}

Status LookupLoop::Skipped(const Status& why) {
  return Unavailable(why.message() + "; it is skipped until it answers a probe");
}

}  // namespace engram::client
