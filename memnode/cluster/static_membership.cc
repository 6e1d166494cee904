#include "memnode/cluster/static_membership.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "common/io/json.h"
#include "common/obs/log.h"

namespace engram::memnode {

Result<std::optional<ClusterState>> ReadKeptState(RowStore& store) {
  ASSIGN_OR_RETURN(const auto records, store.ReadRecords(kClusterStateRecord));
  const auto found = records.find(std::string(kClusterStateRecord));
  if (found == records.end()) return std::optional<ClusterState>();
  const std::string context = fmt::format("record {} of the store is damaged", kClusterStateRecord);
  const auto document = io::ParseJson(found->second, context);
  if (!document.ok()) return DataLoss(document.status().message());
  const json::object* const object = document->if_object();
  if (object == nullptr) return DataLoss(context + ": not an object");
  auto state = StateFromJson(*object);
  if (!state.ok()) return DataLoss(fmt::format("{}: {}", context, state.status().message()));
  return std::optional<ClusterState>(*std::move(state));
}

Status KeepState(RowStore& store, const ClusterState& state) {
  const RecordChange change = {std::string(kClusterStateRecord), json::serialize(ToJson(state))};
  return store.WriteRecords({&change, 1}).WithContext("keeping the cluster's state");
}

Result<std::unique_ptr<StaticMembership>> StaticMembership::Open(
    RowStore* store, const table::ClusterMap& settings) {
  ClusterState state;
  state.current = settings;
  std::optional<ClusterState> kept;
  if (store != nullptr) {
    ASSIGN_OR_RETURN(kept, ReadKeptState(*store));
  }
  if (kept && kept->current.epoch == settings.epoch &&
      !table::SamePlacement(kept->current, settings)) {
    return FailedPrecondition(fmt::format(
        "cluster.epoch is {}, and this member's store has another cluster of that epoch (record "
        "{}, {} members, {} replicas; the settings have {} and {}): correct cluster.members and "
        "cluster.replicas, or raise cluster.epoch on every member to override what was changed",
        settings.epoch, kClusterStateRecord, kept->current.members.size(), kept->current.replicas,
        settings.members.size(), settings.replicas));
  }
  if (kept && kept->current.epoch >= settings.epoch) {
    state = *std::move(kept);
  } else if (kept) {
    obs::LogWarn(fmt::format(
        "cluster.epoch overrides the state that was kept settings_epoch={} kept_epoch={} "
        "kept_revision={} kept_change=\"{}\"",
        settings.epoch, kept->current.epoch, kept->revision, kept->change));
    RETURN_IF_ERROR(KeepState(*store, state));
  }
  return std::unique_ptr<StaticMembership>(new StaticMembership(store, std::move(state)));
}

Result<ClusterState> StaticMembership::Read() {
  const std::lock_guard lock(mutex_);
  return state_;
}

Status StaticMembership::Watch(Told told) {
  CHECK(!watched_) << "watched twice";
  told_ = std::move(told);
  watched_ = true;
  if (telling_.TryPost([this] { TellNewest_on_worker(); })) return OkStatus();
  return ResourceExhausted("no thread to watch the cluster's state");
}

void StaticMembership::TellNewest_on_worker() {
  const ClusterState newest = *Read();
  if (std::exchange(told_any_, true) && newest.revision <= told_revision_) return;
  told_revision_ = newest.revision;
  told_(newest);
}

Status StaticMembership::Propose(const ClusterState& after) {
  const std::lock_guard one_at_a_time(proposing_);
  ASSIGN_OR_RETURN(const ClusterState before, Read());
  if (before == after) return OkStatus();
  RETURN_IF_ERROR(CheckStep(before, after));
  return Replace(after);
}

Status StaticMembership::Adopt(const ClusterState& later) {
  const std::lock_guard one_at_a_time(proposing_);
  ASSIGN_OR_RETURN(const ClusterState before, Read());
  if (before == later) return OkStatus();
  if (later.cluster.empty() || (!before.cluster.empty() && before.cluster != later.cluster)) {
    return FailedPrecondition(fmt::format(
        "the state is of cluster \"{}\", this member is of \"{}\"", later.cluster, before.cluster));
  }
  if (later.revision <= before.revision || later.current.epoch < before.current.epoch) {
    return FailedPrecondition(fmt::format(
        "revision {} (epoch {}) of the cluster's state is not after revision {} (epoch {})",
        later.revision, later.current.epoch, before.revision, before.current.epoch));
  }
  return Replace(later);
}

// proposing_ is held.
Status StaticMembership::Replace(const ClusterState& after) {
  // What is kept must be readable at the next start.
  RETURN_IF_ERROR(StateFromJson(ToJson(after)).status());
  if (store_ != nullptr) RETURN_IF_ERROR(KeepState(*store_, after));
  {
    const std::lock_guard lock(mutex_);
    state_ = after;
  }
  // Not taken: a task waits already, or the membership is not watched.
  if (watched_) static_cast<void>(telling_.TryPost([this] { TellNewest_on_worker(); }));
  return OkStatus();
}

Status StaticMembership::TellReady(uint64_t revision, const std::string& member) {
  const std::lock_guard lock(mutex_);
  if (revision < ready_revision_) return OkStatus();  // of a change that has ended
  if (revision > ready_revision_) ready_.clear();
  ready_revision_ = revision;
  ready_.insert(member);
  return OkStatus();
}

Result<std::vector<std::string>> StaticMembership::Ready(uint64_t revision) {
  const std::lock_guard lock(mutex_);
  if (revision != ready_revision_) return std::vector<std::string>();
  return std::vector<std::string>(ready_.begin(), ready_.end());
}

}  // namespace engram::memnode
