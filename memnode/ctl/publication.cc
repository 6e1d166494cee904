#include "memnode/ctl/publication.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "common/io/object_reader.h"
#include "memnode/ctl/reservation.h"

namespace engram::ctl {
namespace {

constexpr std::string_view kWhat = "versions of a memory node";

Result<NodeVersion> ParseVersion(const json::value& value) {
  NodeVersion v;
  io::ObjectReader read(value, kWhat);
  for (const auto& [key, place] : {std::pair{"model", &v.model},
                                   {"version", &v.version},
                                   {"base", &v.base},
                                   {"digest", &v.digest},
                                   {"problem", &v.problem}}) {
    read.String(key, *place);
  }
  for (const auto& [key, place] : {std::pair{"rows_held", &v.rows_held},
                                   {"stored_bytes", &v.stored_bytes},
                                   {"generation", &v.generation},
                                   {"prepared_generation", &v.prepared_generation},
                                   {"readers", &v.readers}}) {
    read.Number(key, *place);
  }
  for (const auto& [key, place] : {std::pair{"promised_generation", &v.promised_generation},
                                   {"partitions_in_memory", &v.partitions_in_memory},
                                   {"partitions_owned", &v.partitions_owned},
                                   {"bytes_in_memory", &v.bytes_in_memory},
                                   {"bytes_owned", &v.bytes_owned}}) {
    if (read.Has(key)) read.Number(key, *place);  // not of an older node
  }
  for (const auto& [key, place] : {std::pair{"published", &v.published},
                                   {"prepared", &v.prepared},
                                   {"pinned", &v.pinned},
                                   {"rolled_back", &v.rolled_back},
                                   {"loaded", &v.loaded}}) {
    read.Bool(key, *place);
  }
  if (read.Has("incomplete")) read.Bool("incomplete", v.incomplete);  // not of an older node
  RETURN_IF_ERROR(read.status());
  return v;
}

struct Survey {
  std::vector<std::vector<NodeVersion>> nodes;
  std::vector<size_t> order;  // the nodes by their members' names: the same for every tool
};

Result<Survey> Look(const Nodes& nodes) {
  ASSIGN_OR_RETURN(const auto replies, nodes.CallAll({{"command", "versions"}}));
  RETURN_IF_ERROR(nodes.CheckWhole(replies));
  Survey survey;
  for (const json::object& reply : replies) {
    ASSIGN_OR_RETURN(std::vector<NodeVersion> versions, VersionsOf(reply));
    survey.nodes.push_back(std::move(versions));
  }
  survey.order.resize(nodes.size());
  std::iota(survey.order.begin(), survey.order.end(), size_t{0});
  std::ranges::sort(survey.order, {}, [&](size_t node) {
    return std::string(replies[node].at("member").as_string());
  });
  return survey;
}

const NodeVersion* Find(const std::vector<NodeVersion>& versions, const std::string& model,
                        const std::string& version) {
  for (const NodeVersion& v : versions) {
    if (v.model == model && v.version == version) return &v;
  }
  return nullptr;
}

// The same bytes everywhere.
Status CheckDigests(const Nodes& nodes, const Survey& survey, const std::string& model,
                    const std::string& version) {
  std::string digest;
  for (size_t node = 0; node < nodes.size(); ++node) {
    const NodeVersion* v = Find(survey.nodes[node], model, version);
    if (v == nullptr || v->digest.empty()) {
      return FailedPrecondition(
          fmt::format("version {} of {} is not complete on memory node {}: import it there first; "
                      "nothing was changed",
                      version, model, nodes.address(node)));
    }
    if (digest.empty()) digest = v->digest;
    if (v->digest == digest) continue;
    return FailedPrecondition(fmt::format(
        "version {} of {} has other rows on {} (digest {}) than on {} (digest {}): they were "
        "imported from different folders; nothing was changed",
        version, model, nodes.address(0), digest, nodes.address(node), v->digest));
  }
  return OkStatus();
}

// One more than any so far; or that of the latest publication, when it is this version's and so has
// only to be completed.
struct Generation {
  uint64_t number = 0;
  bool decided = false;  // some node has committed to it
};
Result<Generation> GenerationFor(const Survey& survey, const std::string& model,
                                 const std::string& version) {
  uint64_t highest = 0;
  std::pair<uint64_t, std::string> latest;  // generation and version of what is published
  for (const auto& versions : survey.nodes) {
    for (const NodeVersion& v : versions) {
      if (v.model != model) continue;
      highest = std::max({highest, v.generation, v.prepared_generation});
      if (v.published) latest = std::max(latest, {v.generation, v.version});
    }
  }
  if (latest.second == version && latest.first == highest) return Generation{highest, true};
  if (highest < std::numeric_limits<uint64_t>::max() - 1) return Generation{highest + 1, false};
  return ResourceExhausted(fmt::format(
      "generation {} of {} is the last number there is: import {} under another name; nothing was "
      "changed",
      highest, model, model));
}

Status With(const Status& status, std::string_view what_follows) {
  return Status(status.code(), fmt::format("{}; {}", status.message(), what_follows));
}

constexpr char kRunAgain[] =
    "the version is published, but not every node knows it yet: run this again";

// One publication under way.
class Publisher {
 public:
  Publisher(const Nodes& nodes, const Survey& survey, const Reservation& reservation,
            const Generation& generation, std::string model, std::string version)
      : nodes_(nodes),
        survey_(survey),
        reservation_(reservation),
        generation_(generation),
        model_(std::move(model)),
        version_(std::move(version)) {}

  Status Run(bool rollback) {
    Status ready = Prepare();
    for (size_t i = 0; i < nodes_.size() && ready.ok(); ++i) {
      ready = nodes_.Call(survey_.order[i], Request("promise")).status();
    }
    if (ready.ok()) return Commit(rollback);
    // Nodes that are ready must go on serving it to clients of those that have committed.
    if (generation_.decided) return With(ready, kRunAgain);
    Abort();
    return With(ready, "nothing was published");
  }

 private:
  json::object Request(const char* command) const {
    return {{"command", command},
            {"name", model_},
            {"version", version_},
            {"generation", std::to_string(generation_.number)},
            {"token", reservation_.token()}};
  }

  Status Prepare() {
    const auto keep_alive = [this](const std::vector<size_t>& prepared) -> Status {
      RETURN_IF_ERROR(reservation_.Renew());
      for (const size_t node : prepared) {
        RETURN_IF_ERROR(nodes_.Call(node, Request("renew")).status());
      }
      return OkStatus();
    };
    return nodes_
        .RunJobs(Request("prepare"),
                 fmt::format("loading version {} on {} nodes", version_, nodes_.size()), keep_alive)
        .status();
  }

  void Abort() {
    for (size_t node = 0; node < nodes_.size(); ++node) {
      (void)nodes_.Call(node, Request("abort"));
    }
  }

  // The first commit decides. It goes to the node with the reservation, which refuses it when
  // another tool has that now.
  Status Commit(bool rollback) {
    json::object request = Request("commit");
    request["rollback"] = rollback;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const Status committed = nodes_.Call(survey_.order[i], request).status();
      if (committed.ok()) continue;
      if (i > 0 || generation_.decided) return With(committed, kRunAgain);
      if (committed.code() == Code::kUnavailable || committed.code() == Code::kDeadlineExceeded) {
        return With(committed, "nothing was published for certain: run this again");
      }
      Abort();
      return With(committed, "nothing was published");
    }
    return OkStatus();
  }

  const Nodes& nodes_;
  const Survey& survey_;
  const Reservation& reservation_;
  const Generation generation_;
  const std::string model_, version_;
};

}  // namespace

Result<std::vector<NodeVersion>> VersionsOf(const json::object& reply) {
  const json::value* list = reply.if_contains("versions");
  if (list == nullptr || !list->is_array()) {
    return InvalidArgument(fmt::format("{}: no list", kWhat));
  }
  std::vector<NodeVersion> versions;
  for (const json::value& value : list->get_array()) {
    ASSIGN_OR_RETURN(NodeVersion v, ParseVersion(value));
    versions.push_back(std::move(v));
  }
  return versions;
}

Result<uint64_t> Publish(const Nodes& nodes, const std::string& model, const std::string& version,
                         bool rollback) {
  ASSIGN_OR_RETURN(Survey survey, Look(nodes));
  ASSIGN_OR_RETURN(const Reservation reservation,
                   Reservation::Take(nodes, survey.order[0], model,
                                     fmt::format("the publication of version {}", version)));
  ASSIGN_OR_RETURN(survey, Look(nodes));  // as it is while no other tool changes it
  RETURN_IF_ERROR(CheckDigests(nodes, survey, model, version));
  ASSIGN_OR_RETURN(const Generation generation, GenerationFor(survey, model, version));
  Publisher publisher(nodes, survey, reservation, generation, model, version);
  RETURN_IF_ERROR(publisher.Run(rollback));
  return generation.number;
}

Status AbortPublication(const Nodes& nodes, const std::string& model, const std::string& version) {
  ASSIGN_OR_RETURN(Survey survey, Look(nodes));
  ASSIGN_OR_RETURN(
      const Reservation reservation,
      Reservation::Take(nodes, survey.order[0], model,
                        fmt::format("the end of the publication of version {}", version)));
  ASSIGN_OR_RETURN(survey, Look(nodes));
  std::vector<const NodeVersion*> found;
  uint64_t published = 0;
  bool any = false;
  for (const auto& versions : survey.nodes) {
    found.push_back(Find(versions, model, version));
    if (found.back() == nullptr) continue;
    any |= found.back()->prepared;
    if (found.back()->published) published = std::max(published, found.back()->generation);
  }
  if (!any) {
    return NotFound(fmt::format("no publication of version {} of {} is under way", version, model));
  }
  for (size_t node = 0; node < nodes.size(); ++node) {
    if (found[node] == nullptr || found[node]->prepared_generation == 0 ||
        found[node]->prepared_generation > published) {
      continue;
    }
    return FailedPrecondition(fmt::format(
        "version {} of {} is published (generation {}), though not on {} yet: publish it again, or "
        "another version; nothing was changed",
        version, model, published, nodes.address(node)));
  }
  std::vector<Status> errors;
  for (size_t node = 0; node < nodes.size(); ++node) {
    if (found[node] == nullptr) continue;
    // A node may have promised one generation and be prepared for the next.
    for (const uint64_t generation :
         std::set{found[node]->prepared_generation, found[node]->promised_generation}) {
      if (generation == 0) continue;
      errors.push_back(nodes
                           .Call(node, {{"command", "abort"},
                                        {"name", model},
                                        {"version", version},
                                        {"generation", std::to_string(generation)},
                                        {"token", reservation.token()}})
                           .status());
    }
  }
  return JoinErrors(errors);
}

Status DropVersion(const Nodes& nodes, const std::string& model, const std::string& version) {
  ASSIGN_OR_RETURN(const Survey survey, Look(nodes));
  ASSIGN_OR_RETURN(const Reservation reservation,
                   Reservation::Take(nodes, survey.order[0], model,
                                     fmt::format("the drop of version {}", version)));
  json::object request = {{"command", "may_drop"},
                          {"name", model},
                          {"version", version},
                          {"token", reservation.token()}};
  const Status may = nodes.CallAll(request).status();
  if (!may.ok()) return With(may, "nothing was dropped");
  request["command"] = "drop";
  const auto results =
      nodes.RunJobs(request, fmt::format("dropping version {}", version),
                    [&](const std::vector<size_t>&) { return reservation.Renew(); });
  if (!results.ok()) {
    return With(results.status(), "other nodes may have dropped it already: run this again");
  }
  const auto had_none = [](const json::object& result) {
    const json::value* dropped = result.if_contains("dropped");
    return dropped != nullptr && *dropped == json::value(false);
  };
  if (!std::ranges::all_of(*results, had_none)) return OkStatus();
  return NotFound(fmt::format("there is no version {} of {} on any node", version, model));
}

Result<std::string> VersionBefore(const Nodes& nodes, const std::string& model) {
  ASSIGN_OR_RETURN(const Survey survey, Look(nodes));
  // A version's last publication on any node, and the latest of what is published now.
  std::map<std::string, uint64_t> generations;
  std::set<std::string> rolled_back;
  std::pair<uint64_t, std::string> current;
  for (const auto& versions : survey.nodes) {
    for (const NodeVersion& v : versions) {
      if (v.model != model || v.generation == 0) continue;
      generations[v.version] = std::max(generations[v.version], v.generation);
      if (v.rolled_back) rolled_back.insert(v.version);
      if (v.published) current = std::max(current, {v.generation, v.version});
    }
  }
  if (current.first == 0) {
    return FailedPrecondition(fmt::format("no version of {} is published", model));
  }
  std::pair<uint64_t, std::string> before;
  for (const auto& [version, generation] : generations) {
    if (version == current.second || rolled_back.contains(version)) continue;
    before = std::max(before, {generation, version});
  }
  if (before.first != 0) return before.second;
  return FailedPrecondition(
      fmt::format("no version of {} was published before version {}, or it was dropped or rolled "
                  "back from; publish the one you want",
                  model, current.second));
}

}  // namespace engram::ctl
