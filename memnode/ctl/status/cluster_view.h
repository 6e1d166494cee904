// The cluster as its members' answers show it: which member each address is, how fast each one is
// between two looks, and how far behind the others.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "common/base/status.h"
#include "memnode/ctl/status/member_reply.h"

namespace engram::ctl {

// What came of asking one address.
struct Answer {
  std::string address;
  Status error;                       // of the last look
  std::optional<MemberReply> now;     // empty: the error says why
  std::optional<MemberReply> before;  // an earlier look; empty: there was none
};

struct Rate {
  double seconds = 0;  // between the two looks, by the member's clock
  double rows_per_s = 0;
  // Bound of the histogram's bucket in which the 99th percentile lies, infinity above the last one;
  // empty: no lookup ended.
  std::optional<double> p99_us_max;
};
// Empty when the member was started again in between, or its clock shows no time.
std::optional<Rate> RateBetween(const MemberReply& before, const MemberReply& now);

struct Member {
  std::string address;
  // As it says itself. Of one that does not: its address, or the name of the only listed member
  // that did not answer, when it is the only address that did not.
  std::string name;
  // joining, serving, draining; away: no answer in time; unknown: an answer that is no status.
  std::string state;
  Status error;
  std::optional<MemberReply> reply;
  std::optional<Rate> rate;
  std::optional<uint64_t> behind;  // publications; empty: not known

  std::string Label() const { return name == address ? name : name + " (" + address + ")"; }
};

struct Publication {
  std::string version;
  uint64_t generation = 0;
  auto operator<=>(const Publication& other) const {
    return std::tie(generation, version) <=> std::tie(other.generation, other.version);
  }
  bool operator==(const Publication&) const = default;
};

struct ClusterView {
  std::vector<Member> members;                // in the order of the addresses
  std::map<std::string, Publication> newest;  // by model
  std::vector<std::string> missing;           // listed by a member, and no address answered for it
};
ClusterView ViewCluster(std::vector<Answer> answers);

// What this member has published of the model; generation 0 and no version: nothing.
Publication PublishedBy(const MemberReply& reply, const std::string& model);

}  // namespace engram::ctl
