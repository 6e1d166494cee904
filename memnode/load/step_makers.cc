#include "memnode/load/step_makers.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "common/base/rng.h"
#include "common/table/ngram.h"
#include "common/text/tokenizer.h"
#include "memnode/load/trace.h"
#include "memnode/load/zipf.h"

namespace engram::memnode::load {
namespace {

class UniformSteps : public StepMaker {
 public:
  UniformSteps(const table::TableLayout& layout, uint64_t seed) : layout_(layout), rng_(seed) {}
  Status Fill(StepRows layers) override {
    for (size_t i = 0; i < layers.size(); ++i) {
      const uint64_t total = layout_.layers[i].total_rows;
      for (uint64_t& row : layers[i]) row = rng_.NextBelow(total);
    }
    return OkStatus();
  }

 private:
  const table::TableLayout& layout_;
  Rng rng_;
};

class ZipfSteps : public StepMaker {
 public:
  ZipfSteps(const table::TableLayout& layout, double theta, uint64_t ngrams, uint64_t seed)
      : layout_(layout), ranks_(theta, ngrams), seed_(seed), rng_(seed) {}

  Status Fill(StepRows layers) override {
    const auto columns = static_cast<size_t>(layout_.rows_per_position());
    const size_t positions = layers[0].size() / columns;
    for (size_t p = 0; p < positions; ++p) {
      const uint64_t rank = ranks_.Next(rng_);
      for (int i = 1; i < layout_.max_ngram_size; ++i) window_.Append(TokenOf(rank, i));
      const int64_t last = TokenOf(rank, 0);
      for (size_t i = 0; i < layers.size(); ++i) {
        table::HashRows(layout_, layout_.layers[i], window_, {&last, 1}, {},
                        layers[i].subspan(p * columns, columns));
      }
    }
    return OkStatus();
  }

 private:
  int64_t TokenOf(uint64_t rank, int place) const {
    return static_cast<int64_t>(Mix64(seed_, rank, static_cast<uint64_t>(place)) %
                                layout_.compressed_vocab_size);
  }

  const table::TableLayout& layout_;
  const ZipfRanks ranks_;
  const uint64_t seed_;
  Rng rng_;
  table::NgramState window_;
};

class TokenSteps : public StepMaker {
 public:
  TokenSteps(const table::TableLayout& layout, const StepShape& shape, std::vector<int64_t> ids)
      : layout_(layout), shape_(shape), ids_(std::move(ids)), tokens_(shape.positions()) {
    sequences_.resize(static_cast<size_t>(shape.sequences));
    for (size_t s = 0; s < sequences_.size(); ++s) {
      sequences_[s].next = s * ids_.size() / sequences_.size();
    }
  }

  Status Fill(StepRows layers) override {
    const auto count = static_cast<size_t>(shape_.tokens);
    const size_t rows = count * static_cast<size_t>(layout_.rows_per_position());
    for (size_t s = 0; s < sequences_.size(); ++s) {
      Sequence& sequence = sequences_[s];
      const std::span<int64_t> ids = std::span(tokens_).subspan(s * count, count);
      for (int64_t& id : ids) {
        id = ids_[sequence.next];
        sequence.next = (sequence.next + 1) % ids_.size();
      }
      for (size_t i = 0; i < layers.size(); ++i) {
        table::HashRows(layout_, layout_.layers[i], sequence.history, ids, {},
                        layers[i].subspan(s * rows, rows));
      }
      for (const int64_t id : ids) sequence.history.Append(id);
    }
    return OkStatus();
  }
  std::span<const int64_t> tokens() const override { return tokens_; }

 private:
  struct Sequence {
    size_t next = 0;  // into ids_
    table::NgramState history;
  };
  const table::TableLayout& layout_;
  const StepShape shape_;
  const std::vector<int64_t> ids_;
  std::vector<Sequence> sequences_;
  std::vector<int64_t> tokens_;
};

}  // namespace

std::unique_ptr<StepMaker> MakeUniformSteps(const table::TableLayout& layout, uint64_t seed) {
  return std::make_unique<UniformSteps>(layout, seed);
}

std::unique_ptr<StepMaker> MakeZipfSteps(const table::TableLayout& layout, double theta,
                                         uint64_t ngrams, uint64_t seed) {
  return std::make_unique<ZipfSteps>(layout, theta, ngrams, seed);
}

std::unique_ptr<StepMaker> MakeTokenSteps(const table::TableLayout& layout, const StepShape& shape,
                                          std::vector<int64_t> ids) {
  return std::make_unique<TokenSteps>(layout, shape, std::move(ids));
}

Result<std::vector<int64_t>> EncodeTextFiles(const LoadTables& tables,
                                             const std::vector<std::string>& files) {
  if (!tables.map.has_value()) {
    return InvalidArgument(
        "--source text needs a tokenizer and its token map: give --model, not --procedural");
  }
  ASSIGN_OR_RETURN(const text::Tokenizer tokenizer,
                   text::Tokenizer::Load(tables.model_dir + "/tokenizer.json"));
  std::vector<int64_t> ids;
  uint64_t bytes = 0;
  for (const std::string& file : files) {
    std::error_code error;
    const uint64_t size = std::filesystem::file_size(file, error);
    if (error) return NotFound(fmt::format("text file {}: {}", file, error.message()));
    bytes += size;
    if (bytes > kTextBytesMax) {
      return ResourceExhausted(
          fmt::format("text files up to {} have {} bytes, at most {}: give "
                      "fewer or smaller ones",
                      file, bytes, kTextBytesMax));
    }
    std::ifstream in(file, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    ASSIGN_OR_RETURN(const std::vector<int32_t> raw, tokenizer.Encode(text));
    for (const int32_t id : raw) {
      ASSIGN_OR_RETURN(const int64_t compressed, tables.map->Compress(id));
      ids.push_back(compressed);
    }
  }
  if (ids.empty()) return InvalidArgument("--source text: the files given hold no token");
  return ids;
}

Result<std::unique_ptr<StepMaker>> MakeSteps(const SourceOptions& options, const LoadTables& tables,
                                             StepShape* shape) {
  switch (options.kind) {
    case SourceKind::kUniform:
      return MakeUniformSteps(tables.layout, options.seed);
    case SourceKind::kZipf:
      return MakeZipfSteps(tables.layout, options.theta, options.zipf_ngrams, options.seed);
    case SourceKind::kText: {
      ASSIGN_OR_RETURN(std::vector<int64_t> ids, EncodeTextFiles(tables, options.text_files));
      return MakeTokenSteps(tables.layout, *shape, std::move(ids));
    }
    case SourceKind::kTrace:
      return OpenTrace(options.trace_file, tables, shape);
  }
  return InternalError("no such source");
}

}  // namespace engram::memnode::load
