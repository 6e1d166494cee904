#include "memnode/ctl/cluster/roll_command.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "memnode/ctl/cluster/cluster_change.h"
#include "memnode/ctl/nodes.h"
#include "memnode/ctl/status/member_reply.h"

namespace engram::ctl {
namespace {

constexpr auto kLookEvery = std::chrono::milliseconds(100);
// Clients dial a lost member again after 0.8 s at most, and some.
constexpr Nanos kClientsComeBackWithin = std::chrono::seconds(5);
// A client that has a session proves the member first, and measures its paths, before it reads.
constexpr Nanos kClientsProveWithin = std::chrono::seconds(2);

struct Flags {
  NodeFlags nodes;
  bool anyway = false;
  double timeout_s = 600;
};

class Roll {
 public:
  Roll(Nodes nodes, Nanos timeout) : nodes_(std::move(nodes)), timeout_(timeout) {}

  // Starts one member again, while all others serve; returns when it serves and has its clients.
  Status Restart(size_t node) {
    for (size_t other = 0; other < nodes_.size(); ++other) {
      RETURN_IF_ERROR(AwaitServing(other, "").status());
    }
    ASSIGN_OR_RETURN(const MemberReply before, Ask(node));
    RETURN_IF_ERROR(nodes_.Call(node, {{"command", "restart"}}).status());
    ASSIGN_OR_RETURN(MemberReply now, AwaitServing(node, before.run));
    const TimePoint until = Clock::Real().Now() + kClientsComeBackWithin;
    while (now.sessions < before.sessions && Clock::Real().Now() < until) {
      std::this_thread::sleep_for(kLookEvery);
      ASSIGN_OR_RETURN(now, AwaitServing(node, before.run));
    }
    std::this_thread::sleep_for(kClientsProveWithin);
    fmt::print("{}: serves again, {} of {} clients are back\n", now.member, now.sessions,
               before.sessions);
    std::fflush(stdout);
    return OkStatus();
  }

 private:
  Result<MemberReply> Ask(size_t node) const {
    ASSIGN_OR_RETURN(const json::object reply, nodes_.Call(node, {{"command", "status"}}));
    return ParseMemberReply(reply, nodes_.address(node));
  }
  // Until it serves in another run than `before`.
  Result<MemberReply> AwaitServing(size_t node, const std::string& before) const {
    const TimePoint until = Clock::Real().Now() + timeout_;
    while (true) {
      auto reply = Ask(node);
      const bool serves = reply.ok() && reply->run != before && reply->state == "serving" &&
                          !reply->loading && reply->why.empty();
      if (serves) return reply;
      if (Clock::Real().Now() > until) {
        return Unavailable(
            fmt::format("memory node {} does not serve: {}; the others were left as they are",
                        nodes_.address(node),
                        !reply.ok()            ? reply.status().message()
                        : reply->run == before ? "it has not started again"
                                               : reply->state + " " + reply->why));
      }
      std::this_thread::sleep_for(kLookEvery);
    }
  }

  const Nodes nodes_;
  const Nanos timeout_;
};

Status Run(const Flags& flags) {
  ASSIGN_OR_RETURN(const ClusterChange cluster, ClusterChange::Open(flags.nodes));
  if (cluster.state().next) {
    return FailedPrecondition("a change of the cluster is under way: " + cluster.state().change);
  }
  ASSIGN_OR_RETURN(const table::ClusterMap map, cluster.Map());
  if (map.replicas == 1 && !flags.anyway) {
    return FailedPrecondition(
        "each row has one owner, so that lookups fail while it starts again: engramctl "
        "set-replicas 2 first, or --anyway");
  }
  NodeFlags all = flags.nodes;
  all.addresses = map.addresses;
  ASSIGN_OR_RETURN(Nodes nodes, Nodes::Open(all));
  const size_t count = nodes.size();
  Roll roll(std::move(nodes),
            std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(flags.timeout_s)));
  for (size_t node = 0; node < count; ++node) RETURN_IF_ERROR(roll.Restart(node));
  return OkStatus();
}

}  // namespace

Subcommand AddRollCommand(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  CLI::App* app =
      parent.add_subcommand("roll", "start all members again, one after the other, e.g. upgraded");
  AddNodeFlags(*app, flags->nodes)->required();
  app->add_flag("--anyway", flags->anyway, "also where each row has one owner only");
  app->add_option("--timeout-s", flags->timeout_s, "for each member to serve again")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
