#include "memnode/ctl/make_model/model_maker.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/checkpoint/model_tables.h"
#include "common/table/layout.h"
#include "common/table/vocab_map.h"
#include "common/text/bpe_trainer.h"
#include "memnode/ctl/make_model/model_folder.h"
#include "memnode/ctl/make_model/model_preset.h"
#include "memnode/ctl/make_model/model_tensors.h"

namespace engram::ctl {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCorpus = ENGRAM_SOURCE_DIR "/configs/models/corpus.txt";
constexpr uint64_t kTextBytesMax = 256 << 20;

Result<std::string> ReadTexts(const std::vector<std::string>& files) {
  const std::vector<std::string> paths = files.empty() ? std::vector<std::string>{kCorpus} : files;
  std::string text;
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream content;
    if (!file || !(content << file.rdbuf())) {
      return NotFound(
          fmt::format("cannot read {}, the text to train the tokenizer on; name "
                      "another with --text",
                      path));
    }
    text += content.view();
    if (text.size() > kTextBytesMax) {
      return InvalidArgument(fmt::format("{}: more than {} bytes of text", path, kTextBytesMax));
    }
  }
  return text;
}

Status WriteTokenizer(const MakeModelOptions& options, int64_t vocab_size) {
  ASSIGN_OR_RETURN(const std::string text, ReadTexts(options.text_files));
  const std::vector<std::string> special = {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
                                            "<｜▁pad▁｜>"};
  ASSIGN_OR_RETURN(const json::value document,
                   text::TrainTokenizer(text, static_cast<int>(vocab_size), special));
  return WriteBytes(fs::path(options.out) / "tokenizer.json", json::serialize(document) + "\n");
}

// The map is built from the tokenizer as any reader will load it.
Result<table::VocabMap> WriteTokenMap(const std::string& out) {
  ASSIGN_OR_RETURN(table::VocabMap map,
                   client::MapOfTokenizer((fs::path(out) / "tokenizer.json").string()));
  RETURN_IF_ERROR(map.Save((fs::path(out) / "engram_token_map.bin").string()));
  return map;
}

// Wide element types first, so that every tensor of a shard is aligned to its type.
std::vector<ModelTensor> Aligned(std::vector<ModelTensor> tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const ModelTensor& a, const ModelTensor& b) {
    return SizeOf(a.declaration.dtype) > SizeOf(b.declaration.dtype);
  });
  return tensors;
}

// Backbone shards first, then each table in a shard of its own, as V4.1 ships them.
std::vector<std::vector<ModelTensor>> CutIntoShards(const ModelPreset& preset,
                                                    const table::TableLayout& layout) {
  std::vector<std::vector<ModelTensor>> shards;
  uint64_t shard_bytes = 0;
  for (ModelTensor& tensor : BackboneTensors(preset)) {
    const uint64_t bytes = tensor.size_bytes();
    if (shards.empty() || shard_bytes + bytes > preset.shard_bytes_max) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes += bytes;
    shards.back().push_back(std::move(tensor));
  }
  for (const table::LayerLayout& layer : layout.layers) {
    shards.push_back(TableTensors(layout, layer));
  }
  for (std::vector<ModelTensor>& shard : shards) shard = Aligned(std::move(shard));
  return shards;
}

void Describe(const ModelPreset& preset, const table::TableLayout& layout, size_t shard_count,
              MadeModel& made) {
  for (const ModelTensor& tensor : BackboneTensors(preset)) {
    made.backbone_parameters += tensor.element_count();
  }
  for (const table::LayerLayout& layer : layout.layers) made.table_rows += layer.total_rows;
  made.table_bytes = made.table_rows * layout.row_format.row_bytes();
  made.vocab_size = static_cast<uint64_t>(preset.vocab_size);
  made.compressed_vocab_size = layout.compressed_vocab_size;
  made.shard_count = shard_count;
}

}  // namespace

Status MakeModel(const MakeModelOptions& options, MadeModel* made) {
  ASSIGN_OR_RETURN(ModelPreset preset,
                   FindPreset(options.preset, options.variant, options.table_gib));
  if (options.vocab_size != 0) preset.vocab_size = options.vocab_size;
  RETURN_IF_ERROR(PrepareFolder(options.out, options.force));
  RETURN_IF_ERROR(WriteTokenizer(options, preset.vocab_size));
  ASSIGN_OR_RETURN(const table::VocabMap map, WriteTokenMap(options.out));
  preset.engram.compressed_vocab_size = map.compressed_size();
  ASSIGN_OR_RETURN(const int64_t pad, map.Compress(preset.engram.pad_id));
  const auto encoding = options.variant == table::Variant::kPaper ? table::RowEncoding::kBf16
                                                                  : table::RowEncoding::kFp8Scaled;
  ASSIGN_OR_RETURN(const table::TableLayout layout,
                   table::MakeLayout(preset.engram, map.compressed_size(), pad, encoding));
  const auto shards = CutIntoShards(preset, layout);
  RETURN_IF_ERROR(WriteShards(options.out, shards, options.seed));
  if (made != nullptr) Describe(preset, layout, shards.size(), *made);
  return WriteBytes(fs::path(options.out) / "config.json",
                    json::serialize(ModelConfigJson(preset)) + "\n");
}

}  // namespace engram::ctl
