#include "memnode/cluster/cluster_member.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/base/threads.h"
#include "common/obs/log.h"

namespace engram::memnode {
namespace {

constexpr auto kRetry = std::chrono::seconds(1);
constexpr auto kReadyPoll = std::chrono::milliseconds(200);

}  // namespace

ClusterMember::ClusterMember(Membership& membership, MapFollower& follower, Options options,
                             ClusterState now)
    : membership_(membership),
      follower_(follower),
      options_(std::move(options)),
      state_(now),
      served_(std::move(now.current)) {}

Result<std::unique_ptr<ClusterMember>> ClusterMember::Start(Membership& membership,
                                                            MapFollower& follower, Options options,
                                                            ClusterState now) {
  std::unique_ptr<ClusterMember> member(
      new ClusterMember(membership, follower, std::move(options), std::move(now)));
  ClusterMember* const self = member.get();
  if (self->options_.on_state) self->options_.on_state(self->state_);
  ASSIGN_OR_RETURN(member->thread_, StartThread("cluster", [self] { self->Run(); }));
  RETURN_IF_ERROR(membership.Watch([self](const ClusterState& state) { self->Told(state); }));
  return member;
}

void ClusterMember::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    cancel_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

ClusterMember::View ClusterMember::view() const {
  const std::lock_guard lock(mutex_);
  return {state_, served_.epoch, ready_, problem_};
}

void ClusterMember::Told(const ClusterState& state) {
  const std::lock_guard one_at_a_time(telling_mutex_);
  const ClusterState before = view().state;
  if (state.revision <= before.revision) return;
  if (options_.on_state) options_.on_state(state);
  if (!state.change.empty() && state.change != before.change) {
    obs::LogInfo(fmt::format("the cluster is changed change=\"{}\" epoch={} next_epoch={}",
                             state.change, state.current.epoch,
                             state.next ? state.next->epoch : 0));
  }
  const std::lock_guard lock(mutex_);
  state_ = state;
  // What is being prepared is wanted yet, as the next map or as the one in force.
  if (preparing_ && state.next != preparing_ && !(state.current == *preparing_)) cancel_ = true;
  changed_.notify_all();
}

Result<bool> ClusterMember::Propose(const ClusterState& after) {
  const ClusterState before = view().state;
  if (after.next && !before.next && options_.may_begin) RETURN_IF_ERROR(options_.may_begin());
  // Where proposals were missed: a tool tells the state in force before it goes on.
  const bool behind = after.revision > before.revision + 1 || before.cluster.empty();
  const Status stepped = CheckStep(before, after);
  const bool adopts = behind && !stepped.ok() && !membership_.shared();
  RETURN_IF_ERROR(adopts ? membership_.Adopt(after) : membership_.Propose(after));
  Told(after);
  return membership_.shared();
}

void ClusterMember::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) Step(lock);
}

// Does what is to be done next, or waits.
void ClusterMember::Step(std::unique_lock<std::mutex>& lock) {
  const ClusterState state = state_;
  const auto failed = [&](const Status& why) {
    if (stopping_ || state_.revision != state.revision) return;  // it was given up for that
    if (problem_ != why.message()) {
      obs::LogWarn(fmt::format("a step of the cluster's change failed and is tried again why={}",
                               why.message()));
    }
    problem_ = why.message();
    changed_.wait_for(lock, kRetry, [&] { return stopping_ || state_.revision != state.revision; });
  };
  if (state.current.epoch > served_.epoch) {
    Status done = Reach(state.current, lock);
    if (done.ok()) {
      lock.unlock();
      done = follower_.GoOver(state.current);
      lock.lock();
    }
    if (!done.ok()) return failed(done);
    served_ = state.current;
    prepared_.reset();
    ready_.reset();
    problem_.clear();
    linger_until_ = Clock::Real().Now() + options_.linger;
    return;
  }
  if (state.next && prepared_ != state.next) {
    const Status reached = Reach(*state.next, lock);
    if (!reached.ok()) return failed(reached);
    problem_.clear();
    return;
  }
  if (!state.next && prepared_) {
    prepared_.reset();
    ready_.reset();
    lock.unlock();
    follower_.Forget();
    lock.lock();
    return;
  }
  if (state.next && ready_ != state.revision) {
    lock.unlock();
    const Status told = membership_.TellReady(state.revision, options_.member);
    lock.lock();
    if (!told.ok()) return failed(told);
    ready_ = state.revision;
    return;
  }
  if (state.next && membership_.shared()) {
    lock.unlock();
    const Status ended = EndWhenAllAreReady(state);
    lock.lock();
    if (!ended.ok()) return failed(ended);
    problem_.clear();
    changed_.wait_for(lock, kReadyPoll,
                      [&] { return stopping_ || state_.revision != state.revision; });
    return;
  }
  problem_.clear();
  if (linger_until_ == TimePoint::max()) {
    changed_.wait(lock, [&] { return stopping_ || state_.revision != state.revision; });
    return;
  }
  const Nanos left = linger_until_ - Clock::Real().Now();
  if (left > Nanos::zero()) {
    changed_.wait_for(lock, left, [&] { return stopping_ || state_.revision != state.revision; });
    return;
  }
  linger_until_ = TimePoint::max();
  lock.unlock();
  follower_.EndOldSessions();
  lock.lock();
}

// Has `map` prepared, unless it is.
Status ClusterMember::Reach(const table::ClusterMap& map, std::unique_lock<std::mutex>& lock) {
  if (prepared_ == map) return OkStatus();
  if (stopping_) return Cancelled("the node stops");
  const table::ClusterMap now = served_;
  preparing_ = map;
  cancel_ = false;
  lock.unlock();
  follower_.Forget();
  const Status done = follower_.Prepare(now, map, cancel_);
  lock.lock();
  preparing_.reset();
  prepared_.reset();
  if (done.ok()) prepared_ = map;
  return done;
}

Status ClusterMember::EndWhenAllAreReady(const ClusterState& state) {
  ASSIGN_OR_RETURN(const std::vector<std::string> ready, membership_.Ready(state.revision));
  for (const std::string& member : state.next->members) {
    if (std::ranges::count(ready, member) == 0) return OkStatus();
  }
  ASSIGN_OR_RETURN(const ClusterState after, Commit(state));
  const Status proposed = membership_.Propose(after);
  // Another member was first: its proposal is told.
  return proposed.code() == Code::kFailedPrecondition ? OkStatus() : proposed;
}

}  // namespace engram::memnode
