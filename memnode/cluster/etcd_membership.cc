#include "memnode/cluster/etcd_membership.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <random>
#include <utility>

#include "common/base/threads.h"
#include "common/io/json.h"
#include "common/obs/log.h"

namespace engram::memnode {
namespace {

constexpr Nanos kFirstWait = std::chrono::milliseconds(50);
constexpr Nanos kLongestWait = std::chrono::seconds(2);

// Members that lost one etcd do not come back to it at once: 0.8 to 1.2 of `wait`.
Nanos Spread(Nanos wait) {
  thread_local std::minstd_rand random(std::random_device{}());
  return wait * (800 + static_cast<int64_t>(random() % 401)) / 1000;
}

void SleepUnlessStopped(Nanos time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::unique_lock lock(mutex);
  changed.wait_for(lock, stop, time, [] { return false; });
}

}  // namespace

Result<std::unique_ptr<EtcdMembership>> EtcdMembership::Make(const EtcdConfig& config,
                                                             Nanos timeout) {
  ASSIGN_OR_RETURN(std::unique_ptr<EtcdClient> client, EtcdClient::Make(config, timeout));
  return std::unique_ptr<EtcdMembership>(new EtcdMembership(config.prefix, std::move(client)));
}

EtcdMembership::EtcdMembership(const std::string& prefix, std::unique_ptr<EtcdClient> client)
    : state_key_(prefix + "state"),
      ready_prefix_(prefix + "ready/"),
      client_(std::move(client)),
      silence_(Unavailable("etcd has not been asked yet")) {}

EtcdMembership::~EtcdMembership() {
  stop_.request_stop();
  if (watch_.joinable()) watch_.join();
}

Status EtcdMembership::Note(Status outcome) {
  if (outcome.code() == Code::kCancelled) return outcome;
  const std::lock_guard lock(mutex_);
  if (outcome.ok()) answered_ = std::chrono::steady_clock::now();
  silence_ = outcome;
  return outcome;
}

Status EtcdMembership::health() const {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(silence_);
  const Nanos silent = std::chrono::steady_clock::now() - answered_;
  if (watched_ && silent > kEtcdSilenceMax) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(silent).count();
    return Unavailable(fmt::format("etcd: no answer for {} s", seconds));
  }
  return problem_;
}

Result<ClusterState> EtcdMembership::Parse(const EtcdValue& value) const {
  const std::string context = fmt::format("the cluster's state in etcd, key {}", state_key_);
  const auto document = io::ParseJson(value.bytes, context);
  if (!document.ok()) return DataLoss(document.status().message());
  const json::object* const object = document->if_object();
  if (object == nullptr) return DataLoss(context + ": not an object");
  auto state = StateFromJson(*object);
  if (!state.ok()) return DataLoss(fmt::format("{}: {}", context, state.status().message()));
  if (!state->cluster.empty() && state->revision > 0) return state;
  return DataLoss(context + ": without the cluster's id or a revision");
}

Status EtcdMembership::CheckCluster(const ClusterState& state) {
  const std::lock_guard lock(mutex_);
  if (cluster_.empty() || cluster_ == state.cluster) return OkStatus();
  return FailedPrecondition(
      fmt::format("the state in etcd, key {}, is of cluster {}, this member is of cluster {}: each "
                  "cluster needs an etcd.prefix of its own",
                  state_key_, state.cluster, cluster_));
}

void EtcdMembership::RememberCluster(const ClusterState& state) {
  const std::lock_guard lock(mutex_);
  if (cluster_.empty()) cluster_ = state.cluster;
}

Result<EtcdMembership::Found> EtcdMembership::Find() {
  const Result<EtcdRange> range = client_->Get(state_key_);
  RETURN_IF_ERROR(Note(range.status()));
  if (range->values.empty()) return Found();
  const EtcdValue& value = range->values.front();
  ASSIGN_OR_RETURN(ClusterState state, Parse(value));
  RETURN_IF_ERROR(CheckCluster(state));
  RememberCluster(state);
  return Found{std::move(state), value.mod_revision};
}

Result<ClusterState> EtcdMembership::Read() {
  ASSIGN_OR_RETURN(Found found, Find());
  if (found.state) return *std::move(found.state);
  return NotFound(fmt::format("etcd has no state of the cluster under {}", state_key_));
}

Status EtcdMembership::Propose(const ClusterState& after) {
  // What is kept must be readable.
  RETURN_IF_ERROR(StateFromJson(ToJson(after)).status());
  const Result<Found> before = Find();
  if (!before.ok()) return before.status().WithContext("nothing was proposed");
  if (before->state == after) return OkStatus();
  if (before->state) {
    RETURN_IF_ERROR(CheckStep(*before->state, after));
  } else {
    if (after.cluster.empty()) return FailedPrecondition("a proposal needs the cluster's id");
    if (after.revision != 1) {
      return FailedPrecondition(fmt::format(
          "revision {} of the cluster's state is proposed, but etcd has none under {}: it begins "
          "with 1",
          after.revision, state_key_));
    }
    RETURN_IF_ERROR(CheckCluster(after));
  }
  const auto swap = client_->CompareAndSwap({.key = state_key_,
                                             .mod_revision = before->mod_revision,
                                             .value = json::serialize(ToJson(after)),
                                             .remove_prefix = ready_prefix_});
  RETURN_IF_ERROR(Note(swap.status()).WithContext("proposing the cluster's state"));
  if (swap->succeeded) {
    RememberCluster(after);
    return OkStatus();
  }
  std::string now = "removed";
  if (swap->found) {
    const Result<ClusterState> winner = Parse(*swap->found);
    if (winner.ok() && *winner == after) return OkStatus();
    now = winner.ok() ? fmt::format("of revision {}", winner->revision) : "unreadable";
  }
  return FailedPrecondition(fmt::format(
      "another proposal came first: the cluster's state is {} now; read it again", now));
}

std::string EtcdMembership::ReadyPrefix(uint64_t revision) const {
  return fmt::format("{}{}/", ready_prefix_, revision);
}

Status EtcdMembership::TellReady(uint64_t revision, const std::string& member) {
  const auto swap = client_->CompareAndSwap(
      {.key = ReadyPrefix(revision) + member, .mod_revision = 0, .value = "ready"});
  return Note(swap.status()).WithContext("telling that this member is ready");
}

Result<std::vector<std::string>> EtcdMembership::Ready(uint64_t revision) {
  const std::string prefix = ReadyPrefix(revision);
  const Result<EtcdRange> range = client_->GetKeys(prefix);
  RETURN_IF_ERROR(Note(range.status()));
  std::vector<std::string> members;
  for (const EtcdValue& value : range->values) members.push_back(value.key.substr(prefix.size()));
  return members;
}

Status EtcdMembership::Watch(Told told) {
  CHECK(!told_) << "watched twice";
  told_ = std::move(told);
  {
    const std::lock_guard lock(mutex_);
    watched_ = true;
    answered_ = std::chrono::steady_clock::now();
  }
  ASSIGN_OR_RETURN(watch_, StartThread("etcd watch", [this] { Run_on_watch(); }));
  return OkStatus();
}

void EtcdMembership::Run_on_watch() {
  const std::stop_token stop = stop_.get_token();
  for (Nanos wait = kFirstWait; !stop.stop_requested();) {
    const TimePoint began = std::chrono::steady_clock::now();
    const Status ended = Follow_on_watch();
    if (ended.ok() || stop.stop_requested()) continue;
    if (!std::exchange(lost_, true)) {
      obs::LogWarn(fmt::format("etcd cannot be followed reason=\"{}\"", ended.message()));
    }
    if (std::chrono::steady_clock::now() - began > kLongestWait) wait = kFirstWait;
    SleepUnlessStopped(Spread(wait), stop);
    wait = std::min(2 * wait, kLongestWait);
  }
}

// OK when the watch has missed a change.
Status EtcdMembership::Follow_on_watch() {
  const std::stop_token stop = stop_.get_token();
  ASSIGN_OR_RETURN(const int64_t revision, Read_on_watch());
  const auto watch = client_->Watch(state_key_, revision + 1, stop);
  RETURN_IF_ERROR(Note(watch.status()));
  if (std::exchange(lost_, false)) obs::LogInfo("etcd is followed again");
  while (true) {
    const TimePoint heartbeat = std::chrono::steady_clock::now() + kEtcdHeartbeat;
    for (Nanos rest = kEtcdHeartbeat; rest > Nanos(0);
         rest = heartbeat - std::chrono::steady_clock::now()) {
      ASSIGN_OR_RETURN(const std::vector<EtcdNews::Event> events, (*watch)->Next(rest));
      for (const EtcdNews::Event& event : events) {
        Take_on_watch(event.removed ? nullptr : &event.value);
      }
    }
    // A connection that died silently tells of no change.
    const Result<EtcdRange> now = client_->GetRevision(state_key_, stop);
    RETURN_IF_ERROR(Note(now.status()));
    if ((now->values.empty() ? 0 : now->values[0].mod_revision) != mod_revision_) return OkStatus();
  }
}

Result<int64_t> EtcdMembership::Read_on_watch() {
  const Result<EtcdRange> range = client_->Get(state_key_, stop_.get_token());
  RETURN_IF_ERROR(Note(range.status()));
  Take_on_watch(range->values.empty() ? nullptr : &range->values.front());
  return range->revision;
}

void EtcdMembership::Take_on_watch(const EtcdValue* value) {
  mod_revision_ = value == nullptr ? 0 : value->mod_revision;
  Status problem;
  if (value != nullptr) {
    problem = Accept_on_watch(*value);
  } else if (last_) {
    problem =
        DataLoss(fmt::format("the cluster's state was removed from etcd, key {}; revision {} "
                             "stays in force",
                             state_key_, last_->revision));
  }
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(problem_, problem).message() == problem.message()) return;
  }
  if (!problem.ok()) obs::LogError(problem.message());
}

Status EtcdMembership::Accept_on_watch(const EtcdValue& value) {
  ASSIGN_OR_RETURN(ClusterState state, Parse(value));
  RETURN_IF_ERROR(CheckCluster(state));
  RememberCluster(state);
  if (last_ == state) return OkStatus();
  if (last_ && state.revision <= last_->revision) {
    return FailedPrecondition(fmt::format(
        "the cluster's state in etcd, key {}, is of revision {}, after revision {} was in force, "
        "which stays: was etcd restored from an old copy?",
        state_key_, state.revision, last_->revision));
  }
  last_ = std::move(state);
  told_(*last_);
  return OkStatus();
}

}  // namespace engram::memnode
