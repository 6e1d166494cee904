#include "memnode/ctl/dump_command.h"

#include <fmt/format.h>

#include <memory>
#include <utility>
#include <vector>

#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/table_source.h"
#include "memnode/ctl/nodes.h"
#include "memnode/ctl/publication.h"
#include "memnode/ctl/store_folder.h"
#include "memnode/store/manifest.h"
#include "memnode/upkeep/row_description.h"

namespace engram::ctl {
namespace {

struct Flags {
  std::string store;
  NodeFlags node;
  std::string model;
  std::string name;
  std::string version;
  int layer_id = 0;
  uint64_t row = 0;
  bool json = false;
};

using Tables = std::pair<std::string, std::string>;  // model, version

// Name and version as given, or those of the only table set there is.
Result<Tables> WhichTables(const std::vector<Tables>& there, const Flags& flags) {
  std::vector<Tables> fit;
  std::string all;
  for (const auto& [model, version] : there) {
    all += fmt::format("{}{} version {}", all.empty() ? "" : ", ", model, version);
    if (!flags.name.empty() && flags.name != model) continue;
    if (!flags.version.empty() && flags.version != version) continue;
    fit.emplace_back(model, version);
  }
  if (fit.size() == 1) return fit.front();
  return NotFound(fmt::format("--name and --version fit {} table sets of those there: {}",
                              fit.size(), all.empty() ? "none" : all));
}

Result<json::object> DescribeInStore(const Flags& flags) {
  ASSIGN_OR_RETURN(const auto store, OpenStoreFolder(flags.store));
  ASSIGN_OR_RETURN(const auto manifests, memnode::AllManifests(*store));
  std::vector<Tables> there;
  for (const memnode::Manifest& manifest : manifests) {
    there.emplace_back(manifest.identity.model, manifest.identity.version);
  }
  ASSIGN_OR_RETURN(const Tables which, WhichTables(there, flags));
  return memnode::DescribeStoredRow(*store, which.first, which.second, flags.layer_id, flags.row);
}

Result<json::object> DescribeOnNode(const Flags& flags) {
  ASSIGN_OR_RETURN(const Nodes node, Nodes::Open(flags.node));
  ASSIGN_OR_RETURN(const json::object reply, node.Call(0, {{"command", "versions"}}));
  ASSIGN_OR_RETURN(const auto versions, VersionsOf(reply));
  std::vector<Tables> there;
  for (const NodeVersion& v : versions) there.emplace_back(v.model, v.version);
  ASSIGN_OR_RETURN(const Tables which, WhichTables(there, flags));
  return node.Call(0, {{"command", "row"},
                       {"name", which.first},
                       {"version", which.second},
                       {"layer", std::to_string(flags.layer_id)},
                       {"row", std::to_string(flags.row)}});
}

Result<json::object> Describe(const Flags& flags) {
  if (!flags.store.empty()) return DescribeInStore(flags);
  if (!flags.node.addresses.empty()) return DescribeOnNode(flags);
  ASSIGN_OR_RETURN(const client::ModelTables tables,
                   client::LoadModelTables(flags.model, flags.name,
                                           flags.version.empty() ? "1" : flags.version));
  ASSIGN_OR_RETURN(const auto source, client::OpenTableSource(flags.model, tables));
  return memnode::DescribeSourceRow(tables, *source, flags.layer_id, flags.row);
}

Status Run(const Flags& flags) {
  ASSIGN_OR_RETURN(const json::object description, Describe(flags));
  if (flags.json) {
    fmt::print("{}\n", json::serialize(description));
    return OkStatus();
  }
  ASSIGN_OR_RETURN(const std::string text, memnode::RowText(description));
  fmt::print("{}", text);
  return OkStatus();
}

}  // namespace

Subcommand AddDumpCommand(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  CLI::App* app = parent.add_subcommand("dump", "print one row, raw and decoded");
  CLI::Option_group* from = app->add_option_group("from", "where the row is read");
  from->add_option("--store", flags->store, "folder of a memory node's store");
  from->add_option("--node", flags->node.addresses, "host:port of the control socket of its owner")
      ->expected(1);
  from->add_option("--model", flags->model, "model folder");
  from->require_option(1);
  AddSecurityFlags(*app, flags->node);
  app->add_option("--name", flags->name, "model (default: the only one)");
  app->add_option("--version", flags->version, "version (default: the only one)");
  app->add_option("--layer", flags->layer_id, "id of the Engram layer")->required();
  app->add_option("--row", flags->row, "row of the layer")->required();
  app->add_flag("--json", flags->json, "as a JSON object");
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
