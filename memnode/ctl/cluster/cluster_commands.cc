#include "memnode/ctl/cluster/cluster_commands.h"

#include <fmt/format.h>

#include <charconv>
#include <memory>
#include <string>
#include <utility>

#include "memnode/ctl/cluster/cluster_change.h"
#include "memnode/ctl/cluster/map_edits.h"
#include "memnode/ctl/cluster/move_plan.h"

namespace engram::ctl {
namespace {

constexpr Nanos kClientsLeaveWithin = std::chrono::seconds(60);
constexpr uint64_t kDefaultMoveRate = 128;  // cluster.move_mib_s

struct Flags {
  NodeFlags nodes;
  NewMember member;
  bool now = false;
  uint32_t replicas = 1;
  std::vector<std::string> weights;  // NAME=N
};

// A change: its name, and the map it leads to.
struct Wanted {
  std::string change;
  table::ClusterMap map;
};
using Edit = Result<Wanted> (*)(ClusterChange& cluster, const Flags& flags);

Result<Wanted> Add(ClusterChange& cluster, const Flags& flags) {
  RETURN_IF_ERROR(cluster.AddNode(flags.member.address));
  const ClusterNode* const node = cluster.Find(flags.member.name);
  if (node == nullptr || node->address != flags.member.address) {
    return FailedPrecondition(fmt::format("the memory node at {} does not call itself {}",
                                          flags.member.address, flags.member.name));
  }
  ASSIGN_OR_RETURN(table::ClusterMap map, cluster.Map());
  ASSIGN_OR_RETURN(map, WithMember(std::move(map), flags.member));
  return Wanted{"add " + flags.member.name, std::move(map)};
}

Result<Wanted> Drain(ClusterChange& cluster, const Flags& flags) {
  ASSIGN_OR_RETURN(table::ClusterMap map, cluster.Map());
  ASSIGN_OR_RETURN(map, WithoutMember(std::move(map), flags.member.name));
  if (cluster.Find(flags.member.name) == nullptr) {
    return FailedPrecondition(fmt::format(
        "{} does not answer: engramctl remove takes out a member that is gone", flags.member.name));
  }
  return Wanted{"drain " + flags.member.name, std::move(map)};
}

Result<Wanted> Remove(ClusterChange& cluster, const Flags& flags) {
  ASSIGN_OR_RETURN(table::ClusterMap map, cluster.Map());
  ASSIGN_OR_RETURN(map, WithoutMember(std::move(map), flags.member.name));
  if (!flags.now && cluster.Find(flags.member.name) != nullptr) {
    return FailedPrecondition(fmt::format(
        "{} answers: engramctl drain takes out a member that serves, --now removes it all the same",
        flags.member.name));
  }
  return Wanted{"remove " + flags.member.name, std::move(map)};
}

Result<Wanted> SetReplicas(ClusterChange& cluster, const Flags& flags) {
  ASSIGN_OR_RETURN(table::ClusterMap map, cluster.Map());
  ASSIGN_OR_RETURN(map, WithReplicas(std::move(map), flags.replicas));
  return Wanted{fmt::format("set-replicas {}", flags.replicas), std::move(map)};
}

Result<Wanted> Rebalance(ClusterChange& cluster, const Flags& flags) {
  std::vector<std::pair<std::string, uint32_t>> weights;
  std::string change = "rebalance";
  for (const std::string& text : flags.weights) {
    const size_t equals = text.find('=');
    const char* const end = text.data() + text.size();
    uint32_t weight = 0;
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size() ||
        std::from_chars(text.data() + equals + 1, end, weight).ptr != end) {
      return InvalidArgument(fmt::format("--weights \"{}\": expected NAME=N", text));
    }
    weights.emplace_back(text.substr(0, equals), weight);
    change += " " + text;
  }
  ASSIGN_OR_RETURN(table::ClusterMap map, cluster.Map());
  ASSIGN_OR_RETURN(map, WithWeights(std::move(map), weights));
  if (change.size() > memnode::kChangeTextBytesMax) change.resize(memnode::kChangeTextBytesMax);
  return Wanted{std::move(change), std::move(map)};
}

Status Plan(const Flags& flags, Edit edit) {
  ASSIGN_OR_RETURN(ClusterChange cluster, ClusterChange::Open(flags.nodes));
  ASSIGN_OR_RETURN(const Wanted wanted, edit(cluster, flags));
  ASSIGN_OR_RETURN(const MovePlan plan,
                   PlanMove(cluster.state().current, wanted.map, cluster.Versions()));
  fmt::print("{}: epoch {} of {} members with {} replicas, then {} of {} with {}\n{}",
             wanted.change, cluster.state().current.epoch, cluster.state().current.members.size(),
             cluster.state().current.replicas, cluster.state().current.epoch + 1,
             wanted.map.members.size(), wanted.map.replicas, MoveTable(plan, kDefaultMoveRate));
  if (cluster.Versions().empty()) fmt::print("no version is served: nothing is copied\n");
  return OkStatus();
}

Status Told(const ClusterChange& cluster, const std::string& change) {
  fmt::print("{}: epoch {} is in force\n", change, cluster.state().current.epoch);
  return OkStatus();
}

Status Carry(const Flags& flags, Edit edit) {
  ASSIGN_OR_RETURN(ClusterChange cluster, ClusterChange::Open(flags.nodes));
  // What is under way already may be this change: its end is what is wanted.
  if (cluster.state().next) {
    const std::string under_way = cluster.state().change;
    if (!under_way.ends_with(" " + flags.member.name) || flags.member.name.empty()) {
      return FailedPrecondition(
          fmt::format("a change of the cluster is under way: {}; engramctl resume ends it, "
                      "engramctl cancel takes it back",
                      under_way));
    }
    RETURN_IF_ERROR(cluster.Resume());
    return Told(cluster, under_way);
  }
  ASSIGN_OR_RETURN(const Wanted wanted, edit(cluster, flags));
  RETURN_IF_ERROR(cluster.Run(wanted.map, wanted.change));
  if (edit == &Drain) {
    RETURN_IF_ERROR(cluster.AwaitClientsGone(flags.member.name, kClientsLeaveWithin));
  }
  return Told(cluster, wanted.change);
}

Status Resume(const Flags& flags) {
  ASSIGN_OR_RETURN(ClusterChange cluster, ClusterChange::Open(flags.nodes));
  if (!cluster.state().next) {
    fmt::print("no change is under way; all members that answer know of epoch {}\n",
               cluster.state().current.epoch);
    return OkStatus();
  }
  const std::string change = cluster.state().change;
  RETURN_IF_ERROR(cluster.Resume());
  return Told(cluster, change);
}

Status Cancel(const Flags& flags) {
  ASSIGN_OR_RETURN(ClusterChange cluster, ClusterChange::Open(flags.nodes));
  const std::string change = cluster.state().change;
  RETURN_IF_ERROR(cluster.Cancel());
  fmt::print("{}: cancelled, epoch {} stays in force\n", change, cluster.state().current.epoch);
  return OkStatus();
}

struct EditCommand {
  const char* name;
  const char* help;
  Edit edit;
  void (*options)(CLI::App& app, Flags& flags);
};

void NameOption(CLI::App& app, Flags& flags) {
  app.add_option("member", flags.member.name, "its name, as in node.name")->required();
}

const EditCommand kEdits[] = {
    {"add", "make a running node, started with cluster.join, a member", &Add,
     [](CLI::App& app, Flags& flags) {
       NameOption(app, flags);
       app.add_option("--address", flags.member.address,
                      "host:port of its control socket, as members and clients reach it")
           ->required();
       app.add_option("--zone", flags.member.zone, "where the members have zones");
       app.add_option("--weight", flags.member.weight, "its share of the rows")
           ->check(CLI::Range(1u, table::kWeightMax))
           ->capture_default_str();
     }},
    {"drain", "take a member that serves out of the list, once the others have its rows", &Drain,
     &NameOption},
    {"remove", "take a member that is gone out of the list", &Remove,
     [](CLI::App& app, Flags& flags) {
       NameOption(app, flags);
       app.add_flag("--now", flags.now, "also when it answers");
     }},
    {"rebalance", "change members' shares of the rows", &Rebalance,
     [](CLI::App& app, Flags& flags) {
       app.add_option("--weights", flags.weights, "NAME=N,...; others keep theirs")
           ->delimiter(',')
           ->required();
     }},
    {"set-replicas", "change how many members hold each row", &SetReplicas,
     [](CLI::App& app, Flags& flags) {
       app.add_option("replicas", flags.replicas, "owners of each row")
           ->required()
           ->check(CLI::Range(1u, table::kReplicasMax));
     }},
};

Subcommand AddOne(CLI::App& parent, const char* name, const char* help,
                  const std::function<void(CLI::App& app, Flags& flags)>& options,
                  std::function<Status(const Flags&)> run) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  CLI::App* app = parent.add_subcommand(name, help);
  if (options) options(*app, *flags);
  AddNodeFlags(*app, flags->nodes)->required();
  return {app, [flags, run = std::move(run)] { return run(*flags); }};
}

}  // namespace

std::vector<Subcommand> AddClusterCommands(CLI::App& parent) {
  std::vector<Subcommand> commands;
  CLI::App* plan = parent.add_subcommand(
      "plan", "say what a change of the member list would move, and change nothing");
  plan->require_subcommand(1);
  for (const EditCommand& edit : kEdits) {
    commands.push_back(AddOne(parent, edit.name, edit.help, edit.options,
                              [&edit](const Flags& flags) { return Carry(flags, edit.edit); }));
    commands.push_back(AddOne(*plan, edit.name, edit.help, edit.options,
                              [&edit](const Flags& flags) { return Plan(flags, edit.edit); }));
  }
  commands.push_back(
      AddOne(parent, "resume", "go on with a change that a tool left under way", nullptr, &Resume));
  commands.push_back(
      AddOne(parent, "cancel", "take back a change that is under way", nullptr, &Cancel));
  return commands;
}

}  // namespace engram::ctl
