#include "memnode/ctl/status/cluster_view.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

namespace engram::ctl {
namespace {

// Upper bound of the bucket that holds the 99th of a hundred values; empty: there are no values.
std::optional<double> P99(const MemberReply& before, const MemberReply& now) {
  std::vector<uint64_t> counts = now.service_counts;
  uint64_t total = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    counts[i] -= std::min(counts[i], before.service_counts[i]);
    total += counts[i];
  }
  if (total == 0) return std::nullopt;
  uint64_t left = total - total / 100;  // values up to the wanted one
  for (size_t i = 0; i < now.service_bounds_us.size(); ++i) {
    if (counts[i] >= left) return now.service_bounds_us[i];
    left -= counts[i];
  }
  return std::numeric_limits<double>::infinity();
}

Member MemberOf(Answer answer) {
  Member member;
  member.address = std::move(answer.address);
  member.name = member.address;
  if (!answer.now) {
    const Code code = answer.error.code();
    const bool away = code == Code::kUnavailable || code == Code::kDeadlineExceeded;
    member.state = away ? "away" : "unknown";
    member.error = std::move(answer.error);
    return member;
  }
  member.name = answer.now->member;
  member.state = answer.now->state;
  if (answer.before) member.rate = RateBetween(*answer.before, *answer.now);
  member.reply = std::move(answer.now);
  return member;
}

std::vector<std::string> Missing(const std::vector<Member>& members) {
  std::set<std::string> listed;
  for (const Member& member : members) {
    if (member.reply) listed.insert(member.reply->members.begin(), member.reply->members.end());
  }
  for (const Member& member : members) {
    if (member.reply) listed.erase(member.name);
  }
  return {listed.begin(), listed.end()};
}

uint64_t Behind(const MemberReply& reply, const std::map<std::string, Publication>& newest) {
  uint64_t behind = 0;
  for (const auto& [model, latest] : newest) {
    const Publication own = PublishedBy(reply, model);
    if (own >= latest) continue;
    behind = std::max({behind, uint64_t{1}, latest.generation - own.generation});
  }
  return behind;
}

}  // namespace

std::optional<Rate> RateBetween(const MemberReply& before, const MemberReply& now) {
  if (before.run != now.run || before.clock_ns >= now.clock_ns ||
      before.rows_sent > now.rows_sent || before.service_bounds_us != now.service_bounds_us) {
    return std::nullopt;
  }
  Rate rate;
  rate.seconds = static_cast<double>(now.clock_ns - before.clock_ns) / 1e9;
  rate.rows_per_s = static_cast<double>(now.rows_sent - before.rows_sent) / rate.seconds;
  rate.p99_us_max = P99(before, now);
  return rate;
}

Publication PublishedBy(const MemberReply& reply, const std::string& model) {
  for (const NodeVersion& v : reply.versions) {
    if (v.model == model && v.published) return {v.version, v.generation};
  }
  return {};
}

ClusterView ViewCluster(std::vector<Answer> answers) {
  ClusterView view;
  for (Answer& answer : answers) view.members.push_back(MemberOf(std::move(answer)));
  view.missing = Missing(view.members);
  const auto silent = [](const Member& member) { return !member.reply; };
  if (view.missing.size() == 1 && std::ranges::count_if(view.members, silent) == 1) {
    std::ranges::find_if(view.members, silent)->name = view.missing.front();
    view.missing.clear();
  }
  for (const Member& member : view.members) {
    if (!member.reply) continue;
    for (const NodeVersion& v : member.reply->versions) {
      if (!v.published) continue;
      Publication& newest = view.newest[v.model];
      newest = std::max(newest, Publication{v.version, v.generation});
    }
  }
  for (Member& member : view.members) {
    if (member.reply && !member.reply->loading) member.behind = Behind(*member.reply, view.newest);
  }
  return view;
}

}  // namespace engram::ctl
