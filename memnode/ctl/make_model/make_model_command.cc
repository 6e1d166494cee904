#include "memnode/ctl/make_model/make_model_command.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "memnode/ctl/make_model/layout_maker.h"
#include "memnode/ctl/make_model/model_maker.h"

namespace engram::ctl {
namespace {

struct Flags {
  MakeModelOptions options;
  MakeLayoutOptions layout;  // used where its layout is not empty
  std::string variant = "paper";
};

Status RunPreset(MakeModelOptions options, const std::string& variant) {
  options.variant = variant == "v41" ? table::Variant::kV41 : table::Variant::kPaper;
  MadeModel made;
  RETURN_IF_ERROR(MakeModel(options, &made));
  fmt::print(
      "made {} ({}, {}, seed {}): {:.1f} M backbone parameters, {} table rows in {:.1f} MiB, "
      "vocabulary {} ({} compressed), {} shards\n",
      options.out, options.preset, variant, options.seed,
      static_cast<double>(made.backbone_parameters) * 1e-6, made.table_rows,
      static_cast<double>(made.table_bytes) / 0x1p20, made.vocab_size, made.compressed_vocab_size,
      made.shard_count);
  return OkStatus();
}

Status RunLayout(MakeLayoutOptions layout, const MakeModelOptions& options) {
  layout.seed = options.seed;
  layout.out = options.out;
  layout.force = options.force;
  MadeLayout made;
  const auto begin = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(MakeLayoutFolder(layout, &made));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  fmt::print(
      "made {} (layout {}, rows x {}, seed {}): {} table rows in {:.1f} MiB, {} shards, "
      "{:.0f} MB/s\n",
      layout.out, layout.layout, layout.rows_scale, layout.seed, made.table_rows,
      static_cast<double>(made.table_bytes) / 0x1p20, made.shard_count,
      static_cast<double>(made.table_bytes) * 1e-6 / took.count());
  return OkStatus();
}

Status Run(const Flags& flags) {
  return flags.layout.layout.empty() ? RunPreset(flags.options, flags.variant)
                                     : RunLayout(flags.layout, flags.options);
}

void AddLayoutFlags(CLI::App& app, MakeLayoutOptions& layout, CLI::Option* preset,
                    CLI::Option* variant) {
  CLI::Option* name =
      app.add_option("--layout", layout.layout,
                     "instead of a preset: tables laid out on disk as DeepSeek-V4.1 (v41), the "
                     "paper's 27B (paper) or Qwen's per-layer embeddings (qwen-ple) are, with "
                     "procedural rows and no backbone to run")
          ->check(CLI::IsMember({"v41", "paper", "qwen-ple"}))
          ->excludes(preset)
          ->excludes(variant);
  app.add_option("--rows-scale", layout.rows_scale,
                 "of --layout: share of the released model's rows, 1e-6 to 1 (v41 at 1: 203 GB)")
      ->needs(name)
      ->capture_default_str();
  app.add_option("--dtype", layout.dtype, "of --layout qwen-ple: bf16, or fp8 without scales")
      ->needs(name)
      ->check(CLI::IsMember({"bf16", "fp8"}))
      ->capture_default_str();
}

}  // namespace

Subcommand AddMakeModelCommand(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  MakeModelOptions& options = flags->options;
  CLI::App* app = parent.add_subcommand(
      "make-model", "write a complete model of seeded weights, or a released model's tables");
  CLI::Option* preset = app->add_option("--preset", options.preset, "size of the model")
                            ->check(CLI::IsMember({"tiny", "small", "dense", "bench"}))
                            ->capture_default_str();
  CLI::Option* variant =
      app->add_option("--variant", flags->variant, "Engram fusion: the paper's or V4.1's")
          ->check(CLI::IsMember({"paper", "v41"}))
          ->capture_default_str();
  AddLayoutFlags(*app, flags->layout, preset, variant);
  app->add_option("--seed", options.seed, "of every weight and row")->capture_default_str();
  app->add_option("--out", options.out, "folder to write")->required();
  app->add_option("--text", options.text_files,
                  "UTF-8 text files to train the tokenizer on (default: the shipped corpus)");
  app->add_option("--vocab-size", options.vocab_size, "tokens of a preset's vocabulary")
      ->check(CLI::Range(512, 1 << 20));
  app->add_option("--table-gib", options.table_gib, "size of the tables of preset bench");
  app->add_flag("--force", options.force, "replace a model already in the folder");
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
