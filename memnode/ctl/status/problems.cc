#include "memnode/ctl/status/problems.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace engram::ctl {
namespace {

using Names = std::vector<std::string>;
using Problems = std::vector<Problem>;

constexpr uint64_t kStoreSilentMs = 5000;  // a look at a store that takes as long is told
constexpr size_t kNamed = 5;               // members named one by one

std::string Listed(const Names& names) {
  const Names some(names.begin(), names.begin() + std::min<long>(kNamed, std::ssize(names)));
  std::string text = fmt::format("{}", fmt::join(some, ", "));
  if (names.size() > kNamed) text += fmt::format(" and {} more", names.size() - kNamed);
  return text;
}

// What several members say, and which members say it: "3 on m0, m1; 4 on m2".
template <typename Value>
std::string Sides(const std::map<Value, Names>& sides) {
  std::vector<std::string> texts;
  texts.reserve(sides.size());
  for (const auto& [value, names] : sides) {
    texts.push_back(fmt::format("{} on {}", value, Listed(names)));
  }
  return fmt::format("{}", fmt::join(texts, "; "));
}

// The dial's own words, without the address that the label has.
std::string ErrorOf(const Member& member) {
  const std::string prefix = fmt::format("memory node {}: ", member.address);
  const std::string& message = member.error.message();
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

void FindUnreachable(const ClusterView& view, Problems& problems) {
  for (const Member& member : view.members) {
    if (member.reply) continue;
    if (member.state == "away") {
      const std::string who = view.missing.empty() || member.name != member.address
                                  ? ""
                                  : fmt::format(" (perhaps one of {})", Listed(view.missing));
      problems.push_back(
          {"unreachable",
           {member.name},
           fmt::format("{}{} does not answer: {}", member.Label(), who, ErrorOf(member)),
           "start it again, or free it if it hangs; where it runs, correct --nodes. "
           "Rows with no other owner cannot be had until then"});
      continue;
    }
    problems.push_back(
        {"no_status",
         {member.name},
         fmt::format("{} answers, but not with a status: {}", member.Label(), ErrorOf(member)),
         "give the cluster's --secret-file, and the engramctl of the node's build"});
  }
}

void FindDoubles(const ClusterView& view, Problems& problems) {
  std::map<std::string, const Member*> first;
  for (const Member& member : view.members) {
    if (!member.reply) continue;
    const auto [place, is_first] = first.try_emplace(member.name, &member);
    if (is_first) continue;
    const Member& other = *place->second;
    const bool same = other.reply->run == member.reply->run;
    problems.push_back(
        {"named_twice",
         {member.name},
         same ? fmt::format("{} and {} are the same node, {}", other.address, member.address,
                            member.name)
              : fmt::format("two nodes, at {} and {}, both say that they are {}", other.address,
                            member.address, member.name),
         same ? "name it once in --nodes" : "give each its own node.name and start them again"});
  }
}

// Members that the others do not list. True: there are such.
bool FindStrangers(const ClusterView& view, Problems& problems) {
  bool any = false;
  for (const Member& member : view.members) {
    if (!member.reply) continue;
    Names lacking;
    for (const Member& other : view.members) {
      if (!other.reply || other.name == member.name) continue;
      if (!std::ranges::count(other.reply->members, member.name)) lacking.push_back(other.name);
    }
    if (lacking.empty()) continue;
    any = true;
    problems.push_back(
        {"not_listed",
         {member.name},
         fmt::format("{} is not in the member list of {}", member.Label(), Listed(lacking)),
         "make cluster.members the same on all nodes and start them again, or leave it out of "
         "--nodes"});
  }
  return any;
}

void FindMissing(const ClusterView& view, Problems& problems) {
  const auto silent = static_cast<size_t>(
      std::ranges::count_if(view.members, [](const Member& member) { return !member.reply; }));
  if (view.missing.size() <= silent) return;  // those that do not answer may be these
  const std::string which =
      silent == 0
          ? Listed(view.missing)
          : fmt::format("at least {} of {}", view.missing.size() - silent, Listed(view.missing));
  problems.push_back({"not_asked", view.missing,
                      fmt::format("{} of the cluster's member list {} not among --nodes", which,
                                  view.missing.size() - silent == 1 ? "is" : "are"),
                      "add the control address to --nodes, so that it is seen"});
}

void FindDisagreement(const ClusterView& view, bool strangers, Problems& problems) {
  std::map<uint32_t, Names> epochs;
  std::map<std::string, Names> lists;
  Names all;
  for (const Member& member : view.members) {
    if (!member.reply) continue;
    all.push_back(member.name);
    epochs[member.reply->epoch].push_back(member.name);
    lists[fmt::format("[{}]", fmt::join(member.reply->members, ", "))].push_back(member.name);
  }
  if (epochs.size() > 1) {
    problems.push_back({"epoch_differs", all,
                        fmt::format("members disagree on the epoch: {}", Sides(epochs)),
                        "engramctl resume tells members what they missed; where settings differ, "
                        "make cluster.epoch and cluster.members the same and start them again"});
  }
  if (lists.size() > 1 && !strangers) {
    problems.push_back({"list_differs", all,
                        fmt::format("members disagree on the member list: {}", Sides(lists)),
                        "make cluster.members the same on all nodes and start them again"});
  }
}

// Of the member list, and of the one that keeps it.
void FindChange(const ClusterView& view, Problems& problems) {
  std::map<std::string, Names> changes, keepers;
  for (const Member& member : view.members) {
    if (!member.reply) continue;
    if (!member.reply->change.empty()) changes[member.reply->change].push_back(member.name);
    if (!member.reply->keeper.empty()) keepers[member.reply->keeper].push_back(member.name);
    if (member.reply->change_problem.empty()) continue;
    problems.push_back({"change_waits",
                        {member.name},
                        fmt::format("{} is not ready for {}: {}", member.Label(),
                                    member.reply->change, member.reply->change_problem),
                        "it tries again by itself; engramctl cancel takes the change back"});
  }
  for (const auto& [change, members] : changes) {
    problems.push_back({.kind = "change",
                        .members = members,
                        .what = fmt::format("the member list is changed: {}", change),
                        .remedy = "engramctl resume ends it where its tool has died",
                        .needs_person = false});
  }
  for (const auto& [why, members] : keepers) {
    problems.push_back({"keeper_away", members, fmt::format("etcd does not answer: {}", why),
                        "lookups go on; the member list cannot be changed until it is back"});
  }
}

std::string ReservedBy(const ClusterView& view, const std::string& model) {
  for (const Member& member : view.members) {
    if (!member.reply) continue;
    for (const MemberReply::Reserved& reserved : member.reply->reserved) {
      if (reserved.model == model) return reserved.holder;
    }
  }
  return "";
}

void FindTools(const ClusterView& view, Problems& problems) {
  std::set<std::pair<std::string, std::string>> told;
  for (const Member& member : view.members) {
    if (!member.reply) continue;
    for (const MemberReply::Reserved& one : member.reply->reserved) {
      if (!told.emplace(one.model, one.holder).second) continue;
      problems.push_back({.kind = "tool_at_work",
                          .what = fmt::format("model {}: {} is under way", one.model, one.holder),
                          .needs_person = false});
    }
  }
}

// While a tool is at work on the model, members may differ for a moment.
void FindBehind(const ClusterView& view, Problems& problems) {
  for (const auto& entry : view.newest) {
    const std::string& model = entry.first;
    const Publication& newest = entry.second;
    if (!ReservedBy(view, model).empty()) continue;
    std::map<Publication, Names> behind;
    bool incomplete = false;
    for (const Member& member : view.members) {
      if (!member.reply || member.reply->loading) continue;
      const Publication own = PublishedBy(*member.reply, model);
      if (own >= newest) continue;
      behind[own].push_back(member.name);
      incomplete |= std::ranges::none_of(member.reply->versions, [&](const NodeVersion& v) {
        return v.model == model && v.version == newest.version && !v.incomplete;
      });
    }
    for (const auto& [own, names] : behind) {
      const std::string serves =
          own.version.empty()
              ? fmt::format("no version of {}", model)
              : fmt::format("version {} of {} (generation {})", own.version, model, own.generation);
      problems.push_back({"behind", names,
                          fmt::format("{} {} {}; the newest is version {} (generation {})",
                                      Listed(names), names.size() == 1 ? "publishes" : "publish",
                                      serves, newest.version, newest.generation),
                          fmt::format("{}engramctl publish --name {} --version {} with all --nodes",
                                      incomplete ? "import the version there, then " : "", model,
                                      newest.version)});
    }
  }
}

// Publications that were begun, and that neither a tool nor a member that committed them leads on.
void FindOpenPublications(const ClusterView& view, Problems& problems) {
  using Key = std::tuple<std::string, uint64_t, std::string>;  // model, generation, version
  std::map<Key, Names> promised, prepared;
  for (const Member& member : view.members) {
    if (!member.reply) continue;
    for (const NodeVersion& v : member.reply->versions) {
      if (v.prepared_generation == 0) continue;
      auto& group = v.promised_generation != 0 ? promised : prepared;
      group[{v.model, v.prepared_generation, v.version}].push_back(member.name);
    }
  }
  const auto open = [&](const Key& key) {
    const auto& [model, generation, version] = key;
    const auto newest = view.newest.find(model);
    return ReservedBy(view, model).empty() &&
           (newest == view.newest.end() || newest->second < Publication{version, generation});
  };
  for (const auto& [key, names] : promised) {
    if (!open(key)) continue;
    const auto& [model, generation, version] = key;
    problems.push_back(
        {"publication_open", names,
         fmt::format("version {} of {} (generation {}) is promised by {}, and no tool is there to "
                     "commit it",
                     version, model, generation, Listed(names)),
         fmt::format("engramctl publish --name {0} --version {1} once more, or engramctl abort "
                     "--name {0} --version {1}, with all --nodes",
                     model, version)});
  }
  for (const auto& [key, names] : prepared) {
    if (!open(key) || promised.contains(key)) continue;
    const auto& [model, generation, version] = key;
    problems.push_back(
        {.kind = "preparation_lapses",
         .members = names,
         .what = fmt::format("version {} of {} (generation {}) is prepared by {}, and no tool is "
                             "there to commit it: it lapses within a minute",
                             version, model, generation, Listed(names)),
         .needs_person = false});
  }
}

void FindOtherRows(const ClusterView& view, Problems& problems) {
  std::map<std::pair<std::string, std::string>, std::map<std::string, Names>> digests;
  for (const Member& member : view.members) {
    if (!member.reply) continue;
    for (const NodeVersion& v : member.reply->versions) {
      if (v.digest.empty()) continue;
      digests[{v.model, v.version}][v.digest.substr(0, 12)].push_back(member.name);
    }
  }
  for (const auto& [version, sides] : digests) {
    if (sides.size() < 2) continue;
    Names all;
    for (const auto& [digest, names] : sides) all.insert(all.end(), names.begin(), names.end());
    problems.push_back({"rows_differ", all,
                        fmt::format("version {} of {} has other rows on some members: digest {}",
                                    version.second, version.first, Sides(sides)),
                        "drop it where it is wrong, and import it from the same folder again"});
  }
}

void FindNotServed(const Member& member, Problems& problems) {
  const MemberReply& reply = *member.reply;
  bool published = false, refused = false;
  for (const NodeVersion& v : reply.versions) {
    published |= v.published;
    if (v.problem.empty() && (!v.published || v.loaded)) continue;
    refused |= v.published;
    problems.push_back(
        {"not_served",
         {member.name},
         fmt::format("{} cannot serve version {} of {}: {}", member.Label(), v.version, v.model,
                     v.problem.empty() ? "it is not loaded" : v.problem),
         "remove the cause, then start the node again or publish or pin the version again"});
  }
  if (!published) {
    problems.push_back({"nothing_published",
                        {member.name},
                        fmt::format("{} has no published version", member.Label()),
                        "engramctl import a version on all nodes, then engramctl publish it"});
  } else if (!refused && !reply.why.empty()) {
    problems.push_back({"not_ready",
                        {member.name},
                        fmt::format("{} is not ready: {}", member.Label(), reply.why),
                        "see the log of the node"});
  } else if (!refused && reply.recent_unreadable > 0) {
    problems.push_back({"lookups_fail",
                        {member.name},
                        fmt::format("{} failed {} of {} lookups of the last ten seconds, because "
                                    "their rows could not be read",
                                    member.Label(), reply.recent_unreadable, reply.recent_lookups),
                        "engramctl verify lists what is damaged; the log of the node says more"});
  }
}

void FindDamage(const Member& member, Problems& problems) {
  for (const MemberReply::Damaged& damaged : member.reply->damage) {
    problems.push_back(
        {"damaged",
         {member.name},
         fmt::format("{} has {} damaged partitions of version {} of {} in its store, and no sound "
                     "copy: {}",
                     member.Label(), damaged.partitions, damaged.version, damaged.model,
                     damaged.why),
         "put the folder that it was imported from back in its place, from which the node repairs "
         "it within a minute"});
  }
  if (member.reply->unmended == 0) return;
  problems.push_back({"damaged_in_memory",
                      {member.name},
                      fmt::format("{} has damaged rows in memory, in {} partitions, and cannot "
                                  "write them again from its store",
                                  member.Label(), member.reply->unmended),
                      "see the log of the node, repair its store, and suspect its memory"});
}

void FindStoreTrouble(const Member& member, Problems& problems) {
  if (!member.reply->store) return;
  const MemberReply::Store& store = *member.reply->store;
  if (store.waiting_ms >= kStoreSilentMs) {
    problems.push_back({"store_silent",
                        {member.name},
                        fmt::format("the store of {} has not answered for {} s", member.Label(),
                                    store.waiting_ms / 1000),
                        "look at its disk and the kernel's log; rows in memory are served"});
  }
  if (store.problem.empty()) return;
  problems.push_back(
      {store.full ? "disk_full" : "store_read_only",
       {member.name},
       fmt::format("the store of {} takes no changes: {}", member.Label(), store.problem),
       store.full
           ? "engramctl drop versions that are not needed, or make room on its disk; what is "
             "published is served"
           : "look at its disk and the kernel's log; what is published is served"});
}

void FindOnMember(const Member& member, Problems& problems) {
  const MemberReply& reply = *member.reply;
  const auto note = [&](const char* kind, const char* text) {
    problems.push_back({.kind = kind,
                        .members = {member.name},
                        .what = fmt::format("{} {}", member.Label(), text),
                        .needs_person = false});
  };
  if (reply.state == "draining")
    note("draining", "is draining: it ends when its clients have left");
  if (reply.loading) {
    note("loading", "is still loading its tables");
    return;
  }
  if (reply.state != "draining") FindNotServed(member, problems);
  FindDamage(member, problems);
  FindStoreTrouble(member, problems);
}

}  // namespace

std::vector<Problem> FindProblems(const ClusterView& view) {
  Problems problems;
  FindUnreachable(view, problems);
  FindDoubles(view, problems);
  const bool strangers = FindStrangers(view, problems);
  FindMissing(view, problems);
  FindDisagreement(view, strangers, problems);
  FindBehind(view, problems);
  FindOpenPublications(view, problems);
  FindOtherRows(view, problems);
  for (const Member& member : view.members) {
    if (member.reply) FindOnMember(member, problems);
  }
  FindChange(view, problems);
  FindTools(view, problems);
  std::stable_partition(problems.begin(), problems.end(),
                        [](const Problem& problem) { return problem.needs_person; });
  return problems;
}

}  // namespace engram::ctl
