#include "memnode/ctl/hash_command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "common/io/json.h"
#include "common/table/ngram.h"
#include "common/table/vocab_map.h"

namespace engram::ctl {
namespace {

struct Options {
  std::string config_path;
  std::vector<int64_t> ids;
  std::vector<int> live;
  bool compressed = false;
  uint64_t compressed_vocab_size = 0;  // 0 = the config's, else the map's
  std::string map_path;                // empty = engram_token_map.bin beside the config
  bool json = false;
};

// The tokens as they are hashed.
struct Input {
  table::TableLayout layout;
  std::vector<int64_t> ids;  // compressed
  std::vector<uint8_t> live;
};

std::string MapPath(const Options& options) {
  if (!options.map_path.empty()) return options.map_path;
  return std::filesystem::path(options.config_path).replace_filename("engram_token_map.bin");
}

Result<std::vector<uint8_t>> LiveFlags(const Options& options) {
  if (!options.live.empty() && options.live.size() != options.ids.size()) {
    return InvalidArgument(fmt::format("--live has {} flags, but --ids has {} tokens",
                                       options.live.size(), options.ids.size()));
  }
  std::vector<uint8_t> live;
  for (const int flag : options.live) {
    if (flag != 0 && flag != 1) {
      return InvalidArgument(fmt::format("--live holds {}, expected 0 or 1", flag));
    }
    live.push_back(static_cast<uint8_t>(flag));
  }
  return live;
}

Result<Input> Prepare(const Options& options) {
  Input input;
  ASSIGN_OR_RETURN(input.live, LiveFlags(options));
  ASSIGN_OR_RETURN(const table::EngramConfig config, table::LoadEngramConfig(options.config_path));
  if (const Status known = table::CheckCanHash(config); !known.ok()) {
    return known.WithContext(options.config_path);
  }
  uint64_t size = options.compressed_vocab_size != 0 ? options.compressed_vocab_size
                                                     : config.compressed_vocab_size;
  std::optional<table::VocabMap> map;
  if (!options.compressed || size == 0) {
    ASSIGN_OR_RETURN(map, table::VocabMap::Load(MapPath(options), /*raw_vocab_size=*/0, size));
    size = map->compressed_size();
  }
  int64_t pad = config.pad_id;
  input.ids = options.ids;
  if (!options.compressed) {
    ASSIGN_OR_RETURN(pad, map->Compress(pad));
    for (int64_t& id : input.ids) {
      ASSIGN_OR_RETURN(id, map->Compress(id));
    }
  }
  // How rows are encoded does not change which rows they are.
  Result<table::TableLayout> layout =
      table::MakeLayout(config, size, pad, table::RowEncoding::kBf16);
  if (!layout.ok()) return layout.status().WithContext(options.config_path);
  input.layout = *std::move(layout);
  return input;
}

std::vector<uint64_t> Rows(const Input& input, const table::LayerLayout& layer) {
  std::vector<uint64_t> rows(input.ids.size() *
                             static_cast<size_t>(input.layout.rows_per_position()));
  table::HashRows(input.layout, layer, table::NgramState(), input.ids, input.live, rows);
  return rows;
}

void PrintJson(const Input& input) {
  const auto columns = static_cast<size_t>(input.layout.rows_per_position());
  json::array layers;
  for (const table::LayerLayout& layer : input.layout.layers) {
    const std::vector<uint64_t> rows = Rows(input, layer);
    json::array positions;
    for (size_t first = 0; first < rows.size(); first += columns) {
      positions.push_back(json::array(rows.begin() + static_cast<ptrdiff_t>(first),
                                      rows.begin() + static_cast<ptrdiff_t>(first + columns)));
    }
    layers.push_back(json::object{{"layer_id", layer.layer_id}, {"rows", std::move(positions)}});
  }
  fmt::print("{}\n", json::serialize(json::object{{"layers", std::move(layers)}}));
}

void PrintTable(const Input& input) {
  const auto columns = static_cast<size_t>(input.layout.rows_per_position());
  for (const table::LayerLayout& layer : input.layout.layers) {
    const std::vector<uint64_t> rows = Rows(input, layer);
    fmt::print("layer {} ({} rows)\n", layer.layer_id, layer.total_rows);
    for (size_t t = 0; t < input.ids.size(); ++t) {
      const uint64_t* first = rows.data() + t * columns;
      fmt::print("  position {:>5} id {:>8}: {}\n", t, input.ids[t],
                 fmt::join(first, first + columns, " "));
    }
  }
}

Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const Input input, Prepare(options));
  if (options.json) {
    PrintJson(input);
  } else {
    PrintTable(input);
  }
  return OkStatus();
}

}  // namespace

Subcommand AddHashCommand(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("hash", "print the rows that some tokens read");
  // Shared: CLI11 writes into it while parsing, `run` reads it afterwards.
  auto options = std::make_shared<Options>();
  app->add_option("--config", options->config_path, "a model's config.json")->required();
  app->add_option("--ids", options->ids, "token ids, comma separated (--ids=-1,3 if negative)")
      ->required()
      ->delimiter(',');
  app->add_option("--live", options->live, "1 or 0 for each token; 0 is a masked position")
      ->delimiter(',');
  app->add_flag("--compressed", options->compressed, "ids and pad id are already compressed");
  app->add_option("--compressed-vocab-size", options->compressed_vocab_size,
                  "ids after tokenizer compression (default: the config's, else the map's)");
  app->add_option("--map", options->map_path,
                  "token map (default: engram_token_map.bin beside the config)");
  app->add_flag("--json", options->json, "print JSON");
  return {app, [options] { return Run(*options); }};
}

}  // namespace engram::ctl
