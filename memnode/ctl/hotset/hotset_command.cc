#include "memnode/ctl/hotset/hotset_command.h"

#include <fmt/format.h>

#include <memory>
#include <string>

#include "common/table/hot_set.h"
#include "memnode/ctl/hotset/hotset_maker.h"
#include "memnode/ctl/hotset/hotset_report.h"
#include "memnode/ctl/progress_line.h"
#include "memnode/load/plot.h"

namespace engram::ctl {
namespace {

constexpr uint64_t kMib = uint64_t{1} << 20;

struct Flags {
  HotsetOptions options;
  double pinned_mib = 0;
  uint64_t memory_mib = 2048;
  std::string out;
  std::string plot;
  bool json = false;
};

Status Run(Flags flags) {
  HotsetOptions& options = flags.options;
  options.pinned_bytes_max = static_cast<uint64_t>(flags.pinned_mib * static_cast<double>(kMib));
  options.memory_bytes = flags.memory_mib * kMib;
  ProgressLine line("counting");
  options.on_progress = [&](uint64_t done, uint64_t total) { line.Draw(done, total, done); };
  if (!flags.plot.empty()) RETURN_IF_ERROR(memnode::load::CheckGnuplot());
  ASSIGN_OR_RETURN(const Hotset made, MakeHotset(options));
  if (!flags.out.empty()) RETURN_IF_ERROR(table::WriteHotSet(flags.out, made.hot_set));
  if (!flags.plot.empty()) {
    ASSIGN_OR_RETURN(const std::string svg, HotsetSvg(made));
    RETURN_IF_ERROR(memnode::load::WritePlot(svg, flags.plot));
  }
  if (flags.json) {
    fmt::print("{}\n", json::serialize(HotsetJson(made)));
  } else {
    fmt::print("{}", HotsetText(made));
  }
  return OkStatus();
}

}  // namespace

Subcommand AddHotsetCommand(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  HotsetOptions& options = flags->options;
  CLI::App* app = parent.add_subcommand(
      "hotset", "count the n-grams of texts: which rows to keep in memory, and what that serves");
  app->add_option("--model", options.model_dir, "folder of the model, for its tokenizer")
      ->required();
  app->add_option("--text", options.texts,
                  "UTF-8 files, a document each, and folders: all text below them")
      ->required();
  auto* holdout =
      app->add_option("--holdout", options.holdout, "share of the text to measure, not count")
          ->check(CLI::Range(0.0, 0.9))
          ->capture_default_str();
  app->add_option("--held-out-text", options.texts_held_out, "other text to measure instead")
      ->excludes(holdout);
  app->add_option("--out", flags->out, "hot set to write, for a memory node's tiers.hot_set");
  app->add_option("--top", options.ngrams_max, "n-grams to keep, of all orders together")
      ->check(CLI::Range(uint64_t{1}, table::kHotSetNgramsMax))
      ->capture_default_str();
  app->add_option("--pinned-mib", flags->pinned_mib,
                  "keep no more n-grams than have all their rows in so much memory")
      ->check(CLI::PositiveNumber);
  app->add_option("--orders", options.orders, "lengths of n-grams to keep (default: all)")
      ->delimiter(',');
  app->add_option("--memory-mib", flags->memory_mib,
                  "for counting; beyond it the rarest n-grams are dropped")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  app->add_option("--plot", flags->plot, "SVG to draw the curve in (by gnuplot)");
  app->add_flag("--json", flags->json, "one JSON object");
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
