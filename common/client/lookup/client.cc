#include "common/client/lookup/client.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/base/threads.h"
#include "common/client/lookup/epoch_client.h"
#include "common/obs/log.h"

namespace engram::client {
namespace {

// Waits of the thread that follows epochs, in real time.
constexpr auto kFirstRetry = std::chrono::milliseconds(50);
constexpr auto kLongestRetry = std::chrono::milliseconds(800);
constexpr auto kRetiredPoll = std::chrono::milliseconds(10);
// Requests of an epoch that is over end within their deadlines; those that have none, with this.
constexpr auto kRetiredAtMost = std::chrono::seconds(30);

// The counters of `from` on top of those of `to`; nodes by their names, those of `to` only.
void AddCounters(const SourceStats& from, SourceStats& to) {
  to.rows_asked += from.rows_asked;
  to.rows_distinct += from.rows_distinct;
  to.failovers += from.failovers;
  to.hedges_sent += from.hedges_sent;
  to.hedges_won += from.hedges_won;
  to.reconnects += from.reconnects;
  for (const SourceStats::Node& node : from.nodes) {
    const auto same = std::ranges::find(to.nodes, node.name, &SourceStats::Node::name);
    if (same == to.nodes.end()) continue;
    same->rows_fetched += node.rows_fetched;
    same->bytes_fetched += node.bytes_fetched;
    same->requests += node.requests;
    for (size_t i = 0; i < kPathCount; ++i) same->rows_by_path[i] += node.rows_by_path[i];
  }
}

}  // namespace

LookupClient::LookupClient(const LookupClientOptions& options, const table::TableLayout& layout,
                           const Clock& clock)
    : options_(options), layout_(layout), clock_(clock) {}

LookupClient::~LookupClient() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (following_.joinable()) following_.join();
  // Their threads may still tell of epochs.
  current_.store(nullptr);
  retired_.clear();
}

Result<std::unique_ptr<LookupClient>> LookupClient::Connect(const LookupClientOptions& options,
                                                            const table::TableLayout& layout,
                                                            const Clock& clock) {
  std::unique_ptr<LookupClient> client(new LookupClient(options, layout, clock));
  LookupClient* const self = client.get();
  ASSIGN_OR_RETURN(
      const std::shared_ptr<EpochClient> first,
      EpochClient::Connect(
          options, layout, [self](uint32_t epoch) { self->OnLaterEpoch(epoch); }, clock));
  client->current_.store(first);
  client->identity_ = first->identity();
  client->known_answers_ = first->known_answers();
  if (options.check) RETURN_IF_ERROR(options.check(*client));
  first->ResetCounters();
  ASSIGN_OR_RETURN(client->following_, StartThread("epochs", [self] { self->Follow(); }));
  return client;
}

Result<Ticket> LookupClient::Submit(std::span<const LayerLookup> layers,
                                    const SubmitOptions& options) {
  return current_.load()->Submit(layers, options);
}

void LookupClient::OnLaterEpoch(uint32_t epoch) {
  const std::lock_guard lock(mutex_);
  look_ = true;
  later_epoch_ = std::max(later_epoch_, epoch);
  changed_.notify_all();
}

void LookupClient::Follow() {
  auto retry = kFirstRetry;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (look_) {
      look_ = false;
      lock.unlock();
      const Status gone_on = GoOn();
      lock.lock();
      if (gone_on.ok()) {
        retry = kFirstRetry;
        continue;
      }
      obs::LogWarn(fmt::format("the cluster's new map cannot be followed yet, tried again why={}",
                               gone_on.message()));
      look_ = true;
      changed_.wait_for(lock, retry, [&] { return stopping_; });
      retry = std::min(2 * retry, kLongestRetry);
    } else if (!retired_.empty()) {
      changed_.wait_for(lock, kRetiredPoll, [&] { return stopping_ || look_; });
      lock.unlock();
      EndRetired();
      lock.lock();
    } else {
      changed_.wait(lock, [&] { return stopping_ || look_ || !retired_.empty(); });
    }
  }
}

// Connects to the epoch in force and goes over to it. OK, too, when it is the one that is read, and
// no node has told of a later one; UNAVAILABLE: one has, and none that was reached goes by it yet.
Status LookupClient::GoOn() {
  const std::shared_ptr<EpochClient> before = current_.load();
  LookupClientOptions options = options_;
  options.identity = identity_;
  options.memnodes = before->addresses();
  for (const std::string& address : options_.memnodes) {
    if (std::ranges::count(options.memnodes, address) == 0) options.memnodes.push_back(address);
  }
  ASSIGN_OR_RETURN(std::shared_ptr<EpochClient> next,
                   EpochClient::Connect(
                       options, layout_, [this](uint32_t epoch) { OnLaterEpoch(epoch); }, clock_));
  std::unique_lock lock(mutex_);
  const uint32_t told = later_epoch_;
  if (next->epoch() <= before->epoch()) {
    lock.unlock();
    if (before->epoch() >= told) return OkStatus();
    return Unavailable(fmt::format(
        "epoch {} is in force somewhere, epoch {} at the members reached", told, next->epoch()));
  }
  obs::LogInfo(fmt::format("lookups go by a new map of the cluster epoch={} before={}",
                           next->epoch(), before->epoch()));
  current_.store(std::move(next));
  retired_.push_back({before, clock_.Now() + kRetiredAtMost});
  return OkStatus();
}

// A retired client goes once no caller holds it and nothing is under way.
void LookupClient::EndRetired() {
  std::vector<std::shared_ptr<EpochClient>> ended;  // destroyed outside of the lock
  const std::lock_guard lock(mutex_);
  std::erase_if(retired_, [&](Retired& retired) {
    const bool idle = retired.client.use_count() == 1 && !retired.client->busy();
    if (!idle && clock_.Now() < retired.until) return false;
    AddCounters(retired.client->stats(), past_);
    ended.push_back(std::move(retired.client));
    return true;
  });
}

SourceStats LookupClient::stats() const {
  const std::lock_guard lock(mutex_);
  SourceStats stats = current_.load()->stats();
  AddCounters(past_, stats);
  for (const Retired& retired : retired_) AddCounters(retired.client->stats(), stats);
  return stats;
}

std::string LookupClient::OwnersOf(uint32_t layer_index, uint64_t row) const {
  return current_.load()->OwnersOf(layer_index, row);
}

std::vector<std::string> LookupClient::DescribePaths() const {
  return current_.load()->DescribePaths();
}

uint64_t LookupClient::messages_dropped() const { return current_.load()->messages_dropped(); }

}  // namespace engram::client
