#include "memnode/cluster/static_membership.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "common/io/json.h"
#include "common/obs/log.h"

namespace engram::memnode {
namespace {

Result<std::optional<ClusterState>> ReadRecord(RowStore& store) {
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

Status WriteRecord(RowStore& store, const ClusterState& state) {
  const RecordChange change = {std::string(kClusterStateRecord), json::serialize(ToJson(state))};
  return store.WriteRecords({&change, 1}).WithContext("keeping the cluster's state");
}

// Addresses may be corrected within an epoch: they place no row.
bool SameCluster(table::ClusterMap a, table::ClusterMap b) {
  a.addresses.clear();
  b.addresses.clear();
  return a == b;
}

}  // namespace

Result<std::unique_ptr<StaticMembership>> StaticMembership::Open(
    RowStore* store, const table::ClusterMap& settings) {
  ClusterState state;
  state.current = settings;
  std::optional<ClusterState> kept;
  if (store != nullptr) {
    ASSIGN_OR_RETURN(kept, ReadRecord(*store));
  }
  if (kept && kept->current.epoch == settings.epoch && !SameCluster(kept->current, settings)) {
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
    RETURN_IF_ERROR(WriteRecord(*store, state));
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
  // What is kept must be readable at the next start.
  RETURN_IF_ERROR(StateFromJson(ToJson(after)).status());
  if (store_ != nullptr) RETURN_IF_ERROR(WriteRecord(*store_, after));
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
