#include "memnode/ctl/make_model_command.h"

#include <fmt/format.h>

#include <memory>

#include "memnode/ctl/model_maker.h"

namespace engram::ctl {
namespace {

struct Flags {
  MakeModelOptions options;
  std::string variant = "paper";
};

Status Run(Flags flags) {
  flags.options.variant = flags.variant == "v41" ? table::Variant::kV41 : table::Variant::kPaper;
  MadeModel made;
  RETURN_IF_ERROR(MakeModel(flags.options, &made));
  fmt::print(
      "made {} ({}, {}, seed {}): {:.1f} M backbone parameters, {} table rows in {:.1f} MiB, "
      "vocabulary {} ({} compressed), {} shards\n",
      flags.options.out, flags.options.preset, flags.variant, flags.options.seed,
      static_cast<double>(made.backbone_parameters) * 1e-6, made.table_rows,
      static_cast<double>(made.table_bytes) / 0x1p20, made.vocab_size, made.compressed_vocab_size,
      made.shard_count);
  return OkStatus();
}

}  // namespace

Subcommand AddMakeModelCommand(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  MakeModelOptions& options = flags->options;
  CLI::App* app = parent.add_subcommand("make-model", "write a complete model of seeded weights");
  app->add_option("--preset", options.preset, "size of the model")
      ->check(CLI::IsMember({"tiny", "small", "bench"}))
      ->capture_default_str();
  app->add_option("--variant", flags->variant, "Engram fusion: the paper's or V4.1's")
      ->check(CLI::IsMember({"paper", "v41"}))
      ->capture_default_str();
  app->add_option("--seed", options.seed, "of every weight and row")->capture_default_str();
  app->add_option("--out", options.out, "folder to write")->required();
  app->add_option("--text", options.text_files,
                  "UTF-8 text files to train the tokenizer on (default: the shipped corpus)");
  app->add_option("--table-gib", options.table_gib, "size of the tables of preset bench");
  app->add_flag("--force", options.force, "replace a model already in the folder");
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
