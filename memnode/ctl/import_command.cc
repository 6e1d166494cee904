#include "memnode/ctl/import_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <memory>

#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/table_source.h"
#include "memnode/ctl/nodes.h"
#include "memnode/ctl/progress_line.h"
#include "memnode/store/rocks_store.h"
#include "memnode/store/version_catalog.h"
#include "memnode/upkeep/importer.h"

namespace engram::ctl {
namespace {

constexpr std::string_view kStorePrefix = "store:";

struct Flags {
  NodeFlags nodes;  // its addresses are --to
  std::string model;
  std::string name;
  std::string version;
  std::string base;
  int threads = 0;
  uint64_t memory_mib = 512;
  std::string member = "m0";
  std::vector<std::string> members = {"m0"};
  uint32_t replicas = 1;
  uint32_t epoch = 1;
};

std::atomic<bool> interrupted = false;  // handlers can reach only globals

void OnInterrupt(int) { interrupted = true; }

std::string NameOf(const Flags& flags) {
  return flags.name.empty() ? client::FolderName(flags.model) : flags.name;
}

// Each node takes its share from the folder by itself, so it must see it under the same path.
Status ToNodes(const Flags& flags) {
  ASSIGN_OR_RETURN(const Nodes nodes, Nodes::Open(flags.nodes));
  ASSIGN_OR_RETURN(const auto replies, nodes.CallAll({{"command", "versions"}}));
  RETURN_IF_ERROR(nodes.CheckWhole(replies));
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::absolute(flags.model, error);
  json::object request = {{"command", "import"},
                          {"model_path", folder.lexically_normal().string()},
                          {"name", NameOf(flags)},
                          {"version", flags.version},
                          {"threads", std::to_string(flags.threads)},
                          {"memory_mib", std::to_string(flags.memory_mib)}};
  if (!flags.base.empty()) request["base"] = flags.base;
  ASSIGN_OR_RETURN(
      const auto results,
      nodes.RunJobs(request, fmt::format("importing {} on {} nodes", NameOf(flags), nodes.size())));
  for (size_t node = 0; node < nodes.size(); ++node) {
    const json::value* digest = results[node].if_contains("digest");
    const json::value* first = results[0].if_contains("digest");
    if (digest == nullptr || first == nullptr || *digest != *first) {
      return FailedPrecondition(fmt::format(
          "version {} of {} has other rows on {} ({}) than on {} ({}): do the nodes see the same "
          "folder? Drop it and import it again",
          flags.version, NameOf(flags), nodes.address(node), json::serialize(results[node]),
          nodes.address(0), json::serialize(results[0])));
    }
    fmt::print("{}: {}\n", nodes.address(node), json::serialize(results[node]));
  }
  fmt::print(
      "version {} of {} is complete on {} nodes; engramctl publish makes it the current one\n",
      flags.version, NameOf(flags), nodes.size());
  return OkStatus();
}

Status ToStore(const Flags& flags, const std::string& folder) {
  const auto parsed = table::ParseMembers(flags.members, flags.replicas, flags.epoch);
  if (!parsed.ok()) return parsed.status().WithContext("--members");
  const table::ClusterMap& map = *parsed;
  if (std::find(map.members.begin(), map.members.end(), flags.member) == map.members.end()) {
    return InvalidArgument(fmt::format("--member {} is not among --members", flags.member));
  }
  ASSIGN_OR_RETURN(const client::ModelTables model,
                   client::LoadModelTables(flags.model, NameOf(flags), flags.version));
  ASSIGN_OR_RETURN(const auto source, client::OpenTableSource(flags.model, model));
  ASSIGN_OR_RETURN(const memnode::TablePlan plan,
                   memnode::MakePlan(model.identity, map, flags.member));
  ASSIGN_OR_RETURN(const auto store, memnode::OpenRocksStore(folder));
  RETURN_IF_ERROR(memnode::EndDrop(*store, NameOf(flags), flags.version).status());
  ProgressLine line(fmt::format("importing {} version {}", NameOf(flags), flags.version));
  memnode::ImportOptions options;
  options.threads = flags.threads;
  options.memory_mib = flags.memory_mib;
  options.base_version = flags.base;
  std::error_code error;
  options.source = std::filesystem::absolute(flags.model, error).lexically_normal().string();
  options.cancel = &interrupted;
  memnode::ImportProgress last;
  options.on_progress = [&](const memnode::ImportProgress& progress) {
    last = progress;
    line.Draw(progress.rows_done, progress.rows_total, progress.bytes_read);
  };
  std::signal(SIGINT, OnInterrupt);
  const TimePoint begin = Clock::Real().Now();
  const auto manifest = memnode::ImportTables(*source, model.identity, map, plan, *store, options);
  std::signal(SIGINT, SIG_DFL);
  if (!manifest.ok() && manifest.status().code() == Code::kCancelled) {
    return Cancelled("interrupted; the same command goes on where it was");
  }
  RETURN_IF_ERROR(manifest.status());
  const std::chrono::duration<double> took = Clock::Real().Now() - begin;
  fmt::print(
      "imported {} version {} into {}: {} of {} rows, {:.1f} MB read, {:.1f} MB written, {:.2f} s, "
      "{:.0f} MB/s, digest {}\n",
      NameOf(flags), flags.version, folder, plan.OwnedRows(), plan.TotalRows(),
      static_cast<double>(last.bytes_read) / 1e6, static_cast<double>(last.bytes_written) / 1e6,
      took.count(), static_cast<double>(last.bytes_read) / took.count() / 1e6,
      manifest->identity.content_digest);
  return OkStatus();
}

Status Run(const Flags& flags) {
  if (flags.nodes.addresses.size() == 1 && flags.nodes.addresses[0].starts_with(kStorePrefix)) {
    return ToStore(flags, flags.nodes.addresses[0].substr(kStorePrefix.size()));
  }
  return ToNodes(flags);
}

}  // namespace

Subcommand AddImportCommand(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  CLI::App* app = parent.add_subcommand(
      "import", "store a model folder's tables: on memory nodes, or in one store offline");
  app->add_option("--model", flags->model, "model folder")->required();
  app->add_option("--name", flags->name, "of the model; default: the folder's name");
  app->add_option("--version", flags->version, "of the tables")->required();
  app->add_option("--base", flags->base, "store only what differs from this version");
  app->add_option("--to", flags->nodes.addresses,
                  "host:port,... of all memory nodes, which must see the folder under the same "
                  "path (Ctrl-C leaves them at work; the same command looks on again); or "
                  "store:FOLDER")
      ->required()
      ->delimiter(',');
  app->add_option("--threads", flags->threads, "0: four a CPU")->check(CLI::Range(0, 1024));
  app->add_option("--memory-mib", flags->memory_mib, "for buffers, on each node")
      ->check(CLI::Range(32, 1 << 20))
      ->capture_default_str();
  app->add_option("--member", flags->member, "store:FOLDER only: whose share")
      ->capture_default_str();
  app->add_option("--members", flags->members,
                  "store:FOLDER only: all members of the cluster, as in cluster.members")
      ->delimiter(',')
      ->capture_default_str();
  app->add_option("--replicas", flags->replicas, "store:FOLDER only: cluster.replicas")
      ->check(CLI::Range(1u, table::kReplicasMax))
      ->capture_default_str();
  app->add_option("--epoch", flags->epoch, "store:FOLDER only")->capture_default_str();
  AddSecurityFlags(*app, flags->nodes);
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
