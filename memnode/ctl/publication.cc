#include "memnode/ctl/publication.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace engram::ctl {
namespace {

constexpr std::string_view kWhat = "versions of a memory node";

Result<uint64_t> Number(const json::object& object, std::string_view key) {
  ASSIGN_OR_RETURN(const std::string text, io::GetString(object, key, kWhat));
  uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return value;
  return InvalidArgument(fmt::format("{}: {} is \"{}\"", kWhat, key, text));
}

Result<NodeVersion> ParseVersion(const json::object& object) {
  NodeVersion v;
  ASSIGN_OR_RETURN(v.model, io::GetString(object, "model", kWhat));
  ASSIGN_OR_RETURN(v.version, io::GetString(object, "version", kWhat));
  ASSIGN_OR_RETURN(v.base, io::GetString(object, "base", kWhat));
  ASSIGN_OR_RETURN(v.digest, io::GetString(object, "digest", kWhat));
  ASSIGN_OR_RETURN(v.problem, io::GetString(object, "problem", kWhat));
  ASSIGN_OR_RETURN(v.rows_held, Number(object, "rows_held"));
  ASSIGN_OR_RETURN(v.stored_bytes, Number(object, "stored_bytes"));
  ASSIGN_OR_RETURN(v.generation, Number(object, "generation"));
  ASSIGN_OR_RETURN(v.prepared_generation, Number(object, "prepared_generation"));
  ASSIGN_OR_RETURN(v.readers, Number(object, "readers"));
  ASSIGN_OR_RETURN(v.published, io::GetBool(object, "published", kWhat));
  ASSIGN_OR_RETURN(v.prepared, io::GetBool(object, "prepared", kWhat));
  ASSIGN_OR_RETURN(v.pinned, io::GetBool(object, "pinned", kWhat));
  ASSIGN_OR_RETURN(v.rolled_back, io::GetBool(object, "rolled_back", kWhat));
  ASSIGN_OR_RETURN(v.loaded, io::GetBool(object, "loaded", kWhat));
  return v;
}

struct Survey {
  std::vector<std::vector<NodeVersion>> nodes;
};

Result<Survey> Look(const Nodes& nodes) {
  ASSIGN_OR_RETURN(const auto replies, nodes.CallAll({{"command", "versions"}}));
  RETURN_IF_ERROR(nodes.CheckWhole(replies));
  Survey survey;
  for (const json::object& reply : replies) {
    ASSIGN_OR_RETURN(std::vector<NodeVersion> versions, VersionsOf(reply));
    survey.nodes.push_back(std::move(versions));
  }
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

// One more than any so far; or that of a publication which somebody has committed to already.
struct Generation {
  uint64_t number = 0;
  bool decided = false;  // some node has committed to it
};
Generation GenerationFor(const Survey& survey, const std::string& model,
                         const std::string& version) {
  uint64_t highest = 0, committed = 0;
  for (const auto& versions : survey.nodes) {
    for (const NodeVersion& v : versions) {
      if (v.model != model) continue;
      highest = std::max({highest, v.generation, v.prepared_generation});
      if (v.version == version && v.published) committed = std::max(committed, v.generation);
    }
  }
  if (committed != 0 && committed == highest) return {committed, true};
  return {highest + 1, false};
}

}  // namespace

Result<std::vector<NodeVersion>> VersionsOf(const json::object& reply) {
  const json::value* list = reply.if_contains("versions");
  if (list == nullptr || !list->is_array()) {
    return InvalidArgument(fmt::format("{}: no list", kWhat));
  }
  std::vector<NodeVersion> versions;
  for (const json::value& value : list->get_array()) {
    if (!value.is_object()) return InvalidArgument(fmt::format("{}: no object", kWhat));
    ASSIGN_OR_RETURN(NodeVersion v, ParseVersion(value.get_object()));
    versions.push_back(std::move(v));
  }
  return versions;
}

Result<uint64_t> Publish(const Nodes& nodes, const std::string& model, const std::string& version,
                         bool rollback) {
  ASSIGN_OR_RETURN(const Survey survey, Look(nodes));
  RETURN_IF_ERROR(CheckDigests(nodes, survey, model, version));
  const Generation generation = GenerationFor(survey, model, version);
  json::object request = {{"command", "prepare"},
                          {"name", model},
                          {"version", version},
                          {"generation", std::to_string(generation.number)}};
  const auto prepared =
      nodes.RunJobs(request, fmt::format("loading version {} on {} nodes", version, nodes.size()));
  if (!prepared.ok() && generation.decided) {
    // Nodes that have prepared must go on serving it to clients of those that have committed.
    return Status(
        prepared.status().code(),
        prepared.status().message() +
            "; the version is published, but not every node knows it yet: run this again");
  }
  if (!prepared.ok()) {
    request["command"] = "abort";
    for (size_t node = 0; node < nodes.size(); ++node) (void)nodes.Call(node, request);
    return Status(prepared.status().code(),
                  prepared.status().message() + "; nothing was published");
  }
  request["command"] = "commit";
  request["rollback"] = rollback;
  for (size_t node = 0; node < nodes.size(); ++node) {
    const Result<json::object> committed = nodes.Call(node, request);
    if (committed.ok()) continue;
    return Status(
        committed.status().code(),
        fmt::format("{}; {}", committed.status().message(),
                    node == 0 && !generation.decided
                        ? "nothing was published for certain: run this again"
                        : "the version is published, but not every node knows it yet: run this "
                          "again"));
  }
  return generation.number;
}

Result<std::string> VersionBefore(const Nodes& nodes, const std::string& model) {
  ASSIGN_OR_RETURN(const Survey survey, Look(nodes));
  const NodeVersion* before = nullptr;
  const NodeVersion* current = nullptr;
  for (const NodeVersion& v : survey.nodes[0]) {
    if (v.model == model && v.published) current = &v;
  }
  if (current == nullptr) {
    return FailedPrecondition(fmt::format("no version of {} is published", model));
  }
  for (const NodeVersion& v : survey.nodes[0]) {
    if (v.model != model || v.published || v.rolled_back || v.generation == 0) continue;
    if (before == nullptr || v.generation > before->generation) before = &v;
  }
  if (before != nullptr) return before->version;
  return FailedPrecondition(
      fmt::format("no version of {} was published before version {}, or it was dropped or rolled "
                  "back from; publish the one you want",
                  model, current->version));
}

}  // namespace engram::ctl
