#include "memnode/ctl/version_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "memnode/ctl/publication.h"
#include "memnode/ctl/store_folder.h"
#include "memnode/store/import_progress.h"
#include "memnode/store/version_catalog.h"

namespace engram::ctl {
namespace {

struct Flags {
  NodeFlags nodes;
  std::string name;
  std::string version;
  std::string store;
  bool json = false;
};

std::string StateOf(const NodeVersion& v) {
  if (v.incomplete) return "INCOMPLETE: its import is under way or was stopped; drop removes it";
  std::string state = v.published ? fmt::format("published ({})", v.generation)
                      : v.promised_generation != 0
                          ? fmt::format("being published ({})", v.promised_generation)
                      : v.prepared ? fmt::format("prepared ({})", v.prepared_generation)
                                   : "stored";
  if (v.pinned) state += ", pinned";
  if (v.rolled_back) state += ", rolled back";
  if (v.loaded && v.partitions_in_memory < v.partitions_owned) {
    state +=
        fmt::format(", {} of {} partitions, {:.1f} of {:.1f} MB in memory", v.partitions_in_memory,
                    v.partitions_owned, static_cast<double>(v.bytes_in_memory) / 1e6,
                    static_cast<double>(v.bytes_owned) / 1e6);
  } else if (v.loaded) {
    state += ", in memory";
  }
  if (!v.problem.empty()) state += ", CANNOT BE SERVED: " + v.problem;
  return state;
}

void PrintHeader() {
  fmt::print("{:<22} {:<24} {:<12} {:<10} {:>14} {:>10} {:>8} {:<12} {}\n", "node", "model",
             "version", "base", "rows here", "MB here", "readers", "digest", "state");
}

void PrintRow(const std::string& node, const NodeVersion& v) {
  fmt::print("{:<22} {:<24} {:<12} {:<10} {:>14} {:>10.1f} {:>8} {:<12} {}\n", node, v.model,
             v.version, v.base.empty() ? "-" : v.base, v.rows_held,
             static_cast<double>(v.stored_bytes) / 1e6, v.readers, v.digest.substr(0, 12),
             StateOf(v));
}

// Of a node that is down.
Status ListStore(const Flags& flags) {
  ASSIGN_OR_RETURN(const auto store, OpenStoreFolder(flags.store));
  ASSIGN_OR_RETURN(const auto versions, memnode::ReadVersions(*store));
  ASSIGN_OR_RETURN(const auto stored, store->AllPageBytes());
  PrintHeader();
  for (const memnode::VersionInfo& info : versions) {
    NodeVersion v;
    v.model = info.model;
    v.version = info.version;
    v.base = info.base_version;
    v.digest = info.content_digest;
    v.rows_held = info.rows_held;
    const auto bytes = stored.find(memnode::TableSetIdOf(info.model, info.version));
    if (bytes != stored.end()) v.stored_bytes = bytes->second;
    v.generation = info.generation;
    v.promised_generation = info.promised_generation;
    v.published = info.published;
    v.pinned = info.pinned;
    v.rolled_back = info.rolled_back;
    PrintRow("-", v);
  }
  ASSIGN_OR_RETURN(const auto incomplete, memnode::IncompleteImports(*store));
  for (const memnode::IncompleteImport& import : incomplete) {
    NodeVersion v;
    v.model = import.model;
    v.version = import.version;
    v.incomplete = true;
    const auto bytes = stored.find(import.id);
    if (bytes != stored.end()) v.stored_bytes = bytes->second;
    PrintRow("-", v);
  }
  return OkStatus();
}

Status List(const Flags& flags) {
  if (!flags.store.empty()) return ListStore(flags);
  ASSIGN_OR_RETURN(const Nodes nodes, Nodes::Open(flags.nodes));
  const auto replies = nodes.CallEach({{"command", "versions"}});
  json::array as_json;
  std::vector<Status> errors;
  if (!flags.json) PrintHeader();
  for (size_t node = 0; node < nodes.size(); ++node) {
    errors.push_back(replies[node].status());
    if (!replies[node].ok()) {
      as_json.push_back(
          json::object{{"node", nodes.address(node)}, {"error", replies[node].status().message()}});
      continue;
    }
    as_json.push_back(*replies[node]);
    if (flags.json) continue;
    ASSIGN_OR_RETURN(const auto versions, VersionsOf(*replies[node]));
    for (const NodeVersion& v : versions) PrintRow(nodes.address(node), v);
  }
  if (flags.json) fmt::print("{}\n", json::serialize(as_json));
  return JoinErrors(errors);
}

Status PublishVersion(const Flags& flags, const std::string& version, bool rollback) {
  ASSIGN_OR_RETURN(const Nodes nodes, Nodes::Open(flags.nodes));
  ASSIGN_OR_RETURN(const uint64_t generation, Publish(nodes, flags.name, version, rollback));
  fmt::print("version {} of {} is published on {} nodes (generation {})\n", version, flags.name,
             nodes.size(), generation);
  return OkStatus();
}

Status Rollback(const Flags& flags) {
  ASSIGN_OR_RETURN(const Nodes nodes, Nodes::Open(flags.nodes));
  ASSIGN_OR_RETURN(const std::string version, VersionBefore(nodes, flags.name));
  return PublishVersion(flags, version, /*rollback=*/true);
}

Status Said(const Flags& flags, const Nodes& nodes, const char* what) {
  fmt::print("version {} of {} is {} on {} nodes\n", flags.version, flags.name, what, nodes.size());
  return OkStatus();
}

Status SetPinned(const Flags& flags, bool pinned) {
  ASSIGN_OR_RETURN(const Nodes nodes, Nodes::Open(flags.nodes));
  ASSIGN_OR_RETURN(const auto replies, nodes.CallAll({{"command", "versions"}}));
  RETURN_IF_ERROR(nodes.CheckWhole(replies));
  const json::object request = {
      {"command", pinned ? "pin" : "unpin"}, {"name", flags.name}, {"version", flags.version}};
  RETURN_IF_ERROR(pinned ? nodes.RunJobs(request, "pin").status()
                         : nodes.CallAll(request).status());
  return Said(flags, nodes, pinned ? "pinned" : "not pinned any more");
}

Status Abort(const Flags& flags) {
  ASSIGN_OR_RETURN(const Nodes nodes, Nodes::Open(flags.nodes));
  RETURN_IF_ERROR(AbortPublication(nodes, flags.name, flags.version));
  return Said(flags, nodes, "not being published any more");
}

Status Drop(const Flags& flags) {
  ASSIGN_OR_RETURN(const Nodes nodes, Nodes::Open(flags.nodes));
  RETURN_IF_ERROR(DropVersion(nodes, flags.name, flags.version));
  return Said(flags, nodes, "dropped");
}

using FlagsPtr = std::shared_ptr<Flags>;  // lives as long as the options that fill it

CLI::App* AddCommand(CLI::App& parent, const char* name, const char* help, const FlagsPtr& flags,
                     bool with_version) {
  CLI::App* app = parent.add_subcommand(name, help);
  AddNodeFlags(*app, flags->nodes)->required();
  app->add_option("--name", flags->name, "model")->required();
  if (with_version) app->add_option("--version", flags->version, "version")->required();
  return app;
}

Subcommand AddList(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* app = parent.add_subcommand("versions",
                                        "list what memory nodes, or a store, hold; of nodes "
                                        "that do not answer, that");
  CLI::Option* nodes = AddNodeFlags(*app, flags->nodes);
  app->add_option("--store", flags->store, "folder of a memory node's store")->excludes(nodes);
  app->add_flag("--json", flags->json,
                "the nodes' replies; {\"node\", \"error\"} of one that gave none");
  return {app, [flags] { return List(*flags); }};
}

}  // namespace

std::vector<Subcommand> AddVersionCommands(CLI::App& parent) {
  std::vector<Subcommand> commands = {AddList(parent)};
  const auto add = [&](const char* name, const char* help, bool with_version, auto run) {
    const auto flags = std::make_shared<Flags>();
    CLI::App* app = AddCommand(parent, name, help, flags, with_version);
    commands.push_back({app, [flags, run] { return run(*flags); }});
  };
  add("publish", "make a complete version the current one, on all nodes or on none", true,
      [](const Flags& flags) { return PublishVersion(flags, flags.version, false); });
  add("rollback", "publish again the version that was published before; twice: the one before that",
      false, [](const Flags& flags) { return Rollback(flags); });
  add("abort", "end a publication that was begun and not decided, because its tool has died", true,
      [](const Flags& flags) { return Abort(flags); });
  add("pin", "keep a version in memory, and from being dropped", true,
      [](const Flags& flags) { return SetPinned(flags, true); });
  add("unpin", "end that", true, [](const Flags& flags) { return SetPinned(flags, false); });
  add("drop", "delete a version without readers", true,
      [](const Flags& flags) { return Drop(flags); });
  return commands;
}

}  // namespace engram::ctl
