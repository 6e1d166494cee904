#include "memnode/ctl/digest_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "common/base/sha256.h"
#include "common/base/sha256_pair.h"
#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/table_source.h"
#include "common/client/lookup/content_check.h"
#include "memnode/ctl/progress_line.h"
#include "memnode/store/manifest.h"

namespace engram::ctl {
namespace {

struct Flags {
  std::string model;
  bool write = false;
};

Status Run(const Flags& flags) {
  ASSIGN_OR_RETURN(const std::string digest, DigestOfFolder(flags.model));
  if (flags.write) RETURN_IF_ERROR(client::WriteDigestFile(flags.model, digest));
  fmt::print("{}\n", digest);
  return OkStatus();
}

}  // namespace

Result<std::string> DigestOfFolder(const std::string& model_dir) {
  ASSIGN_OR_RETURN(const client::ModelTables model, client::LoadModelTables(model_dir, "", ""));
  ASSIGN_OR_RETURN(const auto source, client::OpenTableSource(model_dir, model));
  const uint32_t row_bytes = source->row_format().row_bytes();
  uint64_t rows_total = 0;
  for (uint32_t i = 0; i < source->layer_count(); ++i) rows_total += source->rows(i);
  ProgressLine line("reading " + model_dir);
  std::vector<memnode::Manifest::Layer> layers;
  uint64_t rows_done = 0;
  for (uint32_t i = 0; i < source->layer_count(); ++i) {
    const table::LayerPartitions cut = table::CutLayer(source->rows(i), row_bytes);
    std::vector<Sha256Digest>& digests = layers.emplace_back().digests;
    std::vector<std::byte> rows[2];
    // Two partitions at a time: their digests are taken side by side.
    for (uint32_t first = 0; first < cut.partition_count; first += 2) {
      const uint32_t count = std::min<uint32_t>(2, cut.partition_count - first);
      for (uint32_t k = 0; k < count; ++k) {
        const uint64_t row_count = cut.RowCount(first + k);
        rows[k].resize(row_count * row_bytes);
        RETURN_IF_ERROR(source->ReadRows(i, cut.FirstRow(first + k), row_count, rows[k].data()));
        rows_done += row_count;
      }
      const auto pair = Sha256OfTwo(rows[0], rows[count - 1]);
      digests.insert(digests.end(), pair.begin(), pair.begin() + count);
      line.Draw(rows_done, rows_total, rows_done * row_bytes);
    }
  }
  RETURN_IF_ERROR(source->CheckUnchanged());
  return memnode::ContentDigest(layers);
}

Subcommand AddDigestCommand(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  CLI::App* app = parent.add_subcommand(
      "digest", "print the content digest of a model folder's tables, as an import tells it");
  app->add_option("--model", flags->model, "model folder that holds the tables")->required();
  app->add_flag("--write", flags->write,
                fmt::format("also into {} in the folder: an engine that has this file, but not the "
                            "tables, runs only on memory nodes with these tables",
                            client::kDigestFile));
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
