#include "memnode/ctl/verify_command.h"

#include <fmt/format.h>

#include <memory>
#include <set>

#include "memnode/ctl/nodes.h"
#include "memnode/ctl/progress_line.h"
#include "memnode/ctl/publication.h"
#include "memnode/ctl/store_folder.h"
#include "memnode/store/import_progress.h"
#include "memnode/store/manifest.h"
#include "memnode/upkeep/verify_report.h"

namespace engram::ctl {
namespace {

struct Flags {
  std::string store;
  NodeFlags nodes;
  std::string name;     // empty: every model
  std::string version;  // empty: every version
  int threads = 0;
  double mib_per_s = 0;
  bool json = false;

  bool Wants(const std::string& model, const std::string& of_version) const {
    return (name.empty() || name == model) && (version.empty() || version == of_version);
  }
  // For the message when nothing fits.
  std::string Wanted() const {
    return fmt::format("{}{}", name.empty() ? "" : " named " + name,
                       version.empty() ? "" : " of version " + version);
  }
};

struct Tally {
  int checked = 0;
  int bad = 0;
  std::vector<Status> errors;  // of nodes that could not be asked
};

// Prints the report on one table set in one place.
Status Print(const json::object& report, const std::string& place, const Flags& flags,
             Tally* tally) {
  ASSIGN_OR_RETURN(const bool sound, memnode::VerifiedSound(report));
  ++tally->checked;
  if (!sound) ++tally->bad;
  if (flags.json) {
    json::object placed = report;
    placed["place"] = place;
    fmt::print("{}\n", json::serialize(placed));
    return OkStatus();
  }
  ASSIGN_OR_RETURN(const std::string text, memnode::VerifyText(report));
  fmt::print("{}: {}", place, text);
  return OkStatus();
}

// What a killed import left: nothing to verify, but bytes.
void PrintIncomplete(const std::string& model, const std::string& version, uint64_t stored_bytes,
                     const std::string& place, const Flags& flags) {
  if (flags.json) {
    fmt::print("{}\n", json::serialize(json::object{{"model", model},
                                                    {"version", version},
                                                    {"incomplete", true},
                                                    {"stored_bytes", std::to_string(stored_bytes)},
                                                    {"place", place}}));
    return;
  }
  fmt::print(
      "{}: {} version {} is incomplete, {} bytes: its import is under way or was stopped; "
      "import it again, or drop it\n",
      place, model, version, stored_bytes);
}

Status VerifyInStore(memnode::RowStore& store, const table::TableIdentity& identity,
                     const Flags& flags, Tally* tally) {
  ProgressLine line(fmt::format("verifying {} version {}", identity.model, identity.version));
  memnode::VerifyOptions options;
  options.threads = flags.threads;
  options.mib_per_s = flags.mib_per_s;
  options.on_progress = [&](const memnode::VerifyProgress& progress) {
    line.Draw(progress.pages_done, progress.pages_total, progress.bytes_done);
  };
  ASSIGN_OR_RETURN(const json::object report,
                   memnode::VerifyVersion(store, identity.model, identity.version, options));
  return Print(report, flags.store, flags, tally);
}

Status VerifyStore(const Flags& flags, Tally* tally) {
  ASSIGN_OR_RETURN(const auto store, OpenStoreFolder(flags.store));
  ASSIGN_OR_RETURN(const auto manifests, memnode::AllManifests(*store));
  for (const memnode::Manifest& manifest : manifests) {
    if (!flags.Wants(manifest.identity.model, manifest.identity.version)) continue;
    RETURN_IF_ERROR(VerifyInStore(*store, manifest.identity, flags, tally));
  }
  ASSIGN_OR_RETURN(const auto incomplete, memnode::IncompleteImports(*store));
  ASSIGN_OR_RETURN(const auto stored, store->AllPageBytes());
  for (const memnode::IncompleteImport& import : incomplete) {
    if (!flags.Wants(import.model, import.version)) continue;
    const auto bytes = stored.find(import.id);
    PrintIncomplete(import.model, import.version, bytes == stored.end() ? 0 : bytes->second,
                    flags.store, flags);
  }
  return OkStatus();
}

// Every node that answers reads its own share; what the others say is added to the errors.
Status VerifyOnNodes(const Flags& flags, Tally* tally) {
  ASSIGN_OR_RETURN(const Nodes all, Nodes::Open(flags.nodes));
  std::vector<size_t> answering;
  std::vector<json::object> replies;
  const auto told = all.CallEach({{"command", "versions"}});
  for (size_t node = 0; node < all.size(); ++node) {
    tally->errors.push_back(told[node].status());
    if (!told[node].ok()) continue;
    answering.push_back(node);
    replies.push_back(*told[node]);
  }
  const Nodes nodes = all.Those(answering);
  std::set<std::pair<std::string, std::string>> wanted;
  for (size_t node = 0; node < replies.size(); ++node) {
    ASSIGN_OR_RETURN(const auto versions, VersionsOf(replies[node]));
    for (const NodeVersion& v : versions) {
      if (!flags.Wants(v.model, v.version)) continue;
      if (v.incomplete) {
        PrintIncomplete(v.model, v.version, v.stored_bytes, nodes.address(node), flags);
      } else {
        wanted.emplace(v.model, v.version);
      }
    }
  }
  for (const auto& [model, version] : wanted) {
    const auto reports =
        nodes.RunEach({{"command", "verify"}, {"name", model}, {"version", version}},
                      fmt::format("verifying {} version {}", model, version));
    for (size_t node = 0; node < reports.size(); ++node) {
      tally->errors.push_back(reports[node].status());
      if (!reports[node].ok()) continue;
      RETURN_IF_ERROR(Print(*reports[node], nodes.address(node), flags, tally));
    }
  }
  return OkStatus();
}

Status Run(const Flags& flags) {
  const bool offline = !flags.store.empty();
  const std::string where = offline ? "--store " + flags.store : "the nodes";
  Tally tally;
  RETURN_IF_ERROR(offline ? VerifyStore(flags, &tally) : VerifyOnNodes(flags, &tally));
  Status found;
  if (tally.bad > 0) {
    found = DataLoss(
        fmt::format("{} of {} table sets in {} are damaged", tally.bad, tally.checked, where));
  } else if (tally.checked == 0 && JoinErrors(tally.errors).ok()) {
    found = NotFound(fmt::format("no complete table set{} in {}", flags.Wanted(), where));
  }
  return JoinErrors({found, JoinErrors(tally.errors)});
}

}  // namespace

Subcommand AddVerifyCommand(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  CLI::App* app =
      parent.add_subcommand("verify", "read stored tables whole and say what is damaged");
  CLI::Option_group* where = app->add_option_group("where");
  where->add_option("--store", flags->store, "folder of a memory node's store, running or not");
  where
      ->add_option("--nodes", flags->nodes.addresses,
                   "host:port,... of memory nodes' control sockets")
      ->delimiter(',');
  where->require_option(1);
  AddSecurityFlags(*app, flags->nodes);
  app->add_option("--name", flags->name, "model (default: every one)");
  app->add_option("--version", flags->version, "version (default: every one)");
  app->add_option("--threads", flags->threads, "--store only; 0: one a CPU")
      ->check(CLI::Range(0, 256));
  app->add_option("--rate", flags->mib_per_s,
                  "--store only: MiB/s at most (default: as fast as it goes)")
      ->check(CLI::NonNegativeNumber);
  app->add_flag("--json", flags->json, "one JSON object a table set");
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
