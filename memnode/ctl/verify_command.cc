#include "memnode/ctl/verify_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "common/base/clock.h"
#include "memnode/ctl/store_folder.h"
#include "memnode/manifest.h"
#include "memnode/verify_report.h"

namespace engram::ctl {
namespace {

struct Flags {
  std::string store;
  std::string name;     // empty: every model
  std::string version;  // empty: every version
  int threads = 0;
  double mib_per_s = 0;
  bool json = false;
};

// One line on a terminal, drawn over again.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what) : what_(std::move(what)) {}
  ~ProgressLine() {
    if (drawn_) fmt::print(stderr, "\r\x1b[K");
  }

  void Draw(const memnode::VerifyProgress& progress) {
    if (!shown_ || progress.pages_total == 0) return;
    drawn_ = true;
    const std::chrono::duration<double> spent = Clock::Real().Now() - begin_;
    const double done =
        static_cast<double>(progress.pages_done) / static_cast<double>(progress.pages_total);
    const double mib = static_cast<double>(progress.bytes_done) / (1 << 20);
    fmt::print(stderr, "\r\x1b[K{}: {:.1f} %, {:.0f} MiB/s, {:.0f} s left, {} bad pages", what_,
               100 * done, mib / spent.count(), done > 0 ? spent.count() * (1 - done) / done : 0,
               progress.bad_pages);
  }

 private:
  const std::string what_;
  const bool shown_ = isatty(STDERR_FILENO) != 0;
  const TimePoint begin_ = Clock::Real().Now();
  bool drawn_ = false;
};

// Prints a table set's report; adds to *bad when it is not sound.
Status Print(const json::object& report, const Flags& flags, int* bad) {
  ASSIGN_OR_RETURN(const bool sound, memnode::VerifiedSound(report));
  if (!sound) ++*bad;
  if (flags.json) {
    fmt::print("{}\n", json::serialize(report));
    return OkStatus();
  }
  ASSIGN_OR_RETURN(const std::string text, memnode::VerifyText(report));
  fmt::print("{}", text);
  return OkStatus();
}

Status Verify(memnode::RowStore& store, const std::string& model, const std::string& version,
              const Flags& flags, int* bad) {
  ProgressLine line(fmt::format("verifying {} version {}", model, version));
  memnode::VerifyOptions options;
  options.threads = flags.threads;
  options.mib_per_s = flags.mib_per_s;
  options.on_progress = [&](const memnode::VerifyProgress& progress) { line.Draw(progress); };
  ASSIGN_OR_RETURN(const json::object report,
                   memnode::VerifyVersion(store, model, version, options));
  return Print(report, flags, bad);
}

Status Run(const Flags& flags) {
  ASSIGN_OR_RETURN(const auto store, OpenStoreFolder(flags.store));
  ASSIGN_OR_RETURN(const auto manifests, memnode::AllManifests(*store));
  int checked = 0, bad = 0;
  for (const memnode::Manifest& manifest : manifests) {
    const table::TableIdentity& identity = manifest.identity;
    if (!flags.name.empty() && flags.name != identity.model) continue;
    if (!flags.version.empty() && flags.version != identity.version) continue;
    ++checked;
    RETURN_IF_ERROR(Verify(*store, identity.model, identity.version, flags, &bad));
  }
  if (checked == 0) {
    return NotFound(fmt::format("--store {} has no complete table set{}{}", flags.store,
                                flags.name.empty() ? "" : " named " + flags.name,
                                flags.version.empty() ? "" : " of version " + flags.version));
  }
  if (bad > 0) {
    return DataLoss(
        fmt::format("{} of {} table sets in {} are damaged", bad, checked, flags.store));
  }
  return OkStatus();
}

}  // namespace

Subcommand AddVerifyCommand(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  CLI::App* app =
      parent.add_subcommand("verify", "read stored tables whole and say what is damaged");
  app->add_option("--store", flags->store, "folder of a memory node's store")->required();
  app->add_option("--name", flags->name, "model (default: every one)");
  app->add_option("--version", flags->version, "version (default: every one)");
  app->add_option("--threads", flags->threads, "0: one a CPU")->check(CLI::Range(0, 256));
  app->add_option("--rate", flags->mib_per_s, "MiB/s at most (default: as fast as it goes)")
      ->check(CLI::NonNegativeNumber);
  app->add_flag("--json", flags->json, "one JSON object a table set");
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
