#include "memnode/ctl/layout_command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "common/checkpoint/checkpoint_tables.h"
#include "common/checkpoint/safetensors.h"
#include "common/io/json.h"
#include "common/table/layout.h"

namespace engram::ctl {
namespace {

struct Options {
  std::string config_path;
  uint64_t compressed_vocab_size = 0;  // 0 = the config's
  bool json = false;
};

// Decimal strings, because a JSON number is a double to many readers and multipliers may exceed
// 2^53.
template <typename T>
json::array Decimals(const std::vector<T>& values) {
  json::array array;
  for (const T value : values) array.emplace_back(fmt::format("{}", value));
  return array;
}

std::string ToJsonText(const table::TableLayout& layout) {
  json::array layers;
  for (const table::LayerLayout& layer : layout.layers) {
    layers.push_back(json::object{{"layer_id", layer.layer_id},
                                  {"multipliers", Decimals(layer.multipliers)},
                                  {"primes", Decimals(layer.primes)},
                                  {"offsets", Decimals(layer.offsets)},
                                  {"total_rows", layer.total_rows}});
  }
  return json::serialize(
      json::object{{"max_ngram_size", layout.max_ngram_size},
                   {"heads", layout.heads_per_order},
                   {"head_dim", layout.row_format.head_dim},
                   {"row_encoding", table::RowEncodingName(layout.row_format.encoding)},
                   {"row_bytes", layout.row_format.row_bytes()},
                   {"compressed_vocab_size", layout.compressed_vocab_size},
                   {"layers", std::move(layers)}});
}

void PrintTable(const table::TableLayout& layout) {
  fmt::print("orders 2..{}, {} heads each, {} compressed ids; rows of {} bytes ({} x {})\n",
             layout.max_ngram_size, layout.heads_per_order, layout.compressed_vocab_size,
             layout.row_format.row_bytes(), layout.row_format.head_dim,
             table::RowEncodingName(layout.row_format.encoding));
  for (const table::LayerLayout& layer : layout.layers) {
    fmt::print("layer {}: {} rows, {} bytes\n", layer.layer_id, layer.total_rows,
               layer.total_rows * layout.row_format.row_bytes());
    fmt::print("  multipliers {}\n", fmt::join(layer.multipliers, " "));
    fmt::print("  {:>5} {:>4} {:>20} {:>20}\n", "order", "head", "prime", "offset");
    const auto heads = static_cast<size_t>(layout.heads_per_order);
    for (size_t column = 0; column < layer.primes.size(); ++column) {
      fmt::print("  {:>5} {:>4} {:>20} {:>20}\n", column / heads + 2, column % heads,
                 layer.primes[column], layer.offsets[column]);
    }
  }
}

// Of the tensors beside the config, if there are any that can be read, else what the variant
// implies.
table::RowEncoding EncodingOf(const std::string& config_path, const table::EngramConfig& config) {
  const std::string folder = std::filesystem::absolute(config_path).parent_path();
  const Result<io::Checkpoint> checkpoint = io::Checkpoint::Open(folder);
  const auto found = client::DetectEncoding(checkpoint.ok() ? &*checkpoint : nullptr, config);
  if (found.ok()) return *found;
  const bool scaled = config.variant == table::Variant::kV41 && config.head_dim % 32 == 0;
  return scaled ? table::RowEncoding::kFp8Scaled : table::RowEncoding::kBf16;
}

Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const table::EngramConfig config, table::LoadEngramConfig(options.config_path));
  if (const Status known = table::CheckCanHash(config); !known.ok()) {
    return known.WithContext(options.config_path);
  }
  const uint64_t size = options.compressed_vocab_size != 0 ? options.compressed_vocab_size
                                                           : config.compressed_vocab_size;
  if (size == 0) {
    return InvalidArgument(
        fmt::format("{}: no engram_compressed_vocab_size, which the multipliers depend on; give "
                    "--compressed-vocab-size",
                    options.config_path));
  }
  // No pad id goes into a layout, so none is mapped here.
  Result<table::TableLayout> layout = table::MakeLayout(config, size, /*pad_compressed=*/0,
                                                        EncodingOf(options.config_path, config));
  if (!layout.ok()) return layout.status().WithContext(options.config_path);
  if (options.json) {
    fmt::print("{}\n", ToJsonText(*layout));
  } else {
    PrintTable(*layout);
  }
  return OkStatus();
}

}  // namespace

Subcommand AddLayoutCommand(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("layout", "print multipliers, primes, offsets and rows");
  // Shared: CLI11 writes into it while parsing, `run` reads it afterwards.
  auto options = std::make_shared<Options>();
  app->add_option("--config", options->config_path, "a model's config.json")->required();
  app->add_option("--compressed-vocab-size", options->compressed_vocab_size,
                  "ids after tokenizer compression (default: the config's)");
  app->add_flag("--json", options->json, "print JSON");
  return {app, [options] { return Run(*options); }};
}

}  // namespace engram::ctl
