#include "memnode/ctl/dump_command.h"

#include <fmt/format.h>

#include <memory>
#include <optional>

#include "common/client/model_tables.h"
#include "common/client/table_source.h"
#include "memnode/ctl/store_folder.h"
#include "memnode/manifest.h"
#include "memnode/row_description.h"

namespace engram::ctl {
namespace {

struct Flags {
  std::string store;
  std::string model;
  std::string name;
  std::string version;
  int layer_id = 0;
  uint64_t row = 0;
  bool json = false;
};

// Name and version as given, or those of the only table set there is.
Result<std::pair<std::string, std::string>> WhichTables(memnode::RowStore& store,
                                                        const Flags& flags) {
  ASSIGN_OR_RETURN(const auto manifests, memnode::AllManifests(store));
  std::optional<std::pair<std::string, std::string>> found;
  std::string all;
  int count = 0;
  for (const memnode::Manifest& manifest : manifests) {
    const table::TableIdentity& identity = manifest.identity;
    all +=
        fmt::format("{}{} version {}", all.empty() ? "" : ", ", identity.model, identity.version);
    if (!flags.name.empty() && flags.name != identity.model) continue;
    if (!flags.version.empty() && flags.version != identity.version) continue;
    found = {identity.model, identity.version};
    ++count;
  }
  if (count == 1) return *found;
  return NotFound(
      fmt::format("--name and --version fit {} table sets of --store {}, which holds {}", count,
                  flags.store, all.empty() ? "none" : all));
}

Result<json::object> Describe(const Flags& flags) {
  if (!flags.store.empty()) {
    ASSIGN_OR_RETURN(const auto store, OpenStoreFolder(flags.store));
    ASSIGN_OR_RETURN(const auto which, WhichTables(*store, flags));
    return memnode::DescribeStoredRow(*store, which.first, which.second, flags.layer_id, flags.row);
  }
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
  from->add_option("--model", flags->model, "model folder");
  from->require_option(1);
  app->add_option("--name", flags->name, "model (default: the only one)");
  app->add_option("--version", flags->version, "version (default: the only one)");
  app->add_option("--layer", flags->layer_id, "id of the Engram layer")->required();
  app->add_option("--row", flags->row, "row of the layer")->required();
  app->add_flag("--json", flags->json, "as a JSON object");
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
