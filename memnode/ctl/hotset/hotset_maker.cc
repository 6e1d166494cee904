#include "memnode/ctl/hotset/hotset_maker.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "common/checkpoint/model_tables.h"
#include "common/table/row_check.h"
#include "common/text/tokenizer.h"
#include "memnode/ctl/hotset/hit_rate.h"
#include "memnode/ctl/hotset/text_corpus.h"
#include "memnode/tables/pinned_rows.h"

namespace engram::ctl {
namespace {

constexpr uint64_t kSlotsFewest = 4096;

Status CheckOptions(const HotsetOptions& options, const client::ModelTables& model) {
  if (!model.layout.can_hash()) {
    return FailedPrecondition(
        fmt::format("{}: its rows are not found by n-grams, so that text says nothing about them",
                    options.model_dir));
  }
  if (!(options.holdout >= 0 && options.holdout < 1)) {
    return InvalidArgument(
        fmt::format("a share of {} to hold out is not in [0, 1)", options.holdout));
  }
  for (const int order : options.orders) {
    if (order >= 2 && order <= model.layout.max_ngram_size) continue;
    return InvalidArgument(fmt::format("{} has n-grams of 2 to {} tokens, not of {}",
                                       options.model_dir, model.layout.max_ngram_size, order));
  }
  if (options.ngrams_max < 1 || options.ngrams_max > table::kHotSetNgramsMax) {
    return InvalidArgument(fmt::format("a hot set holds 1 to {} n-grams, not {}",
                                       table::kHotSetNgramsMax, options.ngrams_max));
  }
  return OkStatus();
}

// Decides which text is held out: as soon as the share falls short.
class Holdout {
 public:
  explicit Holdout(double share) : share_(share) {}
  bool Take(uint64_t bytes) {
    all_ += static_cast<double>(bytes);
    if (held_ + static_cast<double>(bytes) > share_ * all_) return false;
    held_ += static_cast<double>(bytes);
    return true;
  }

 private:
  const double share_;
  double all_ = 0;
  double held_ = 0;
};

// Tokens of text, counted. N-grams at the start of a text reach back into padding, as hashing does.
class CorpusCounter {
 public:
  CorpusCounter(const client::ModelTables& model, const text::Tokenizer& tokenizer,
                std::vector<OrderCounts> orders)
      : model_(model), tokenizer_(tokenizer), orders_(std::move(orders)) {}

  Status Count(const TextCorpus::Piece& piece, bool held_out) {
    Result<std::vector<int32_t>> tokens = tokenizer_.Encode(piece.text);
    if (!tokens.ok()) return tokens.status();
    const auto lookback = static_cast<size_t>(model_.layout.max_ngram_size - 1);
    if (piece.first) {
      ids_.assign(lookback, static_cast<uint32_t>(model_.layout.pad_compressed));
    } else {
      ids_.erase(ids_.begin(), ids_.end() - static_cast<ptrdiff_t>(lookback));
    }
    for (const int32_t token : *tokens) {
      ASSIGN_OR_RETURN(const int64_t id, model_.map.Compress(token));
      ids_.push_back(static_cast<uint32_t>(id));
    }
    for (OrderCounts& order : orders_) {
      const size_t before = lookback - static_cast<size_t>(order.order - 1);
      (held_out ? order.held_out : order.seen).AddRun(std::span(ids_).subspan(before));
    }
    (held_out ? tokens_held_out_ : tokens_seen_) += tokens->size();
    return OkStatus();
  }

  const std::vector<OrderCounts>& orders() const { return orders_; }
  uint64_t tokens_seen() const { return tokens_seen_; }
  uint64_t tokens_held_out() const { return tokens_held_out_; }

 private:
  const client::ModelTables& model_;
  const text::Tokenizer& tokenizer_;
  std::vector<OrderCounts> orders_;
  std::vector<uint32_t> ids_;  // of this piece, after the last N - 1 before it
  uint64_t tokens_seen_ = 0;
  uint64_t tokens_held_out_ = 0;
};

uint64_t TotalBytes(const std::vector<TextFile>& files) {
  uint64_t bytes = 0;
  for (const TextFile& file : files) bytes += file.size_bytes;
  return bytes;
}

// A token has a byte at least: more slots than that are never needed.
uint64_t SlotsFor(int order, uint64_t memory_bytes, uint64_t text_bytes) {
  const auto tokens = static_cast<size_t>(order);
  const uint64_t affordable = memory_bytes / NgramCounter::BytesFor(tokens, 100) * 100;
  return std::min(affordable, std::max(kSlotsFewest, text_bytes * 3 / 2));
}

Result<std::vector<OrderCounts>> MakeCounters(const HotsetOptions& options, int max_ngram_size,
                                              uint64_t seen_bytes, uint64_t held_out_bytes) {
  // Little text has more different n-grams to the byte: twice its share, at most half.
  const double share =
      std::min(0.5, 2 * static_cast<double>(held_out_bytes) /
                        std::max(1.0, static_cast<double>(seen_bytes + held_out_bytes)));
  const uint64_t memory = options.memory_bytes / static_cast<uint64_t>(max_ngram_size - 1);
  const auto held_out_memory = static_cast<uint64_t>(static_cast<double>(memory) * share);
  std::vector<OrderCounts> orders;
  for (int order = 2; order <= max_ngram_size; ++order) {
    const uint64_t seen_slots = SlotsFor(order, memory - held_out_memory, seen_bytes);
    const uint64_t held_out_slots =
        held_out_bytes == 0 ? kSlotsFewest : SlotsFor(order, held_out_memory, held_out_bytes);
    if (std::min(seen_slots, held_out_slots) < kSlotsFewest) {
      return InvalidArgument(
          fmt::format("{} bytes are too little memory to count n-grams in", options.memory_bytes));
    }
    const auto tokens = static_cast<size_t>(order);
    ASSIGN_OR_RETURN(NgramCounter seen, NgramCounter::Create(tokens, seen_slots));
    ASSIGN_OR_RETURN(NgramCounter held_out, NgramCounter::Create(tokens, held_out_slots));
    orders.push_back({order, std::move(seen), std::move(held_out)});
  }
  return orders;
}

Status CountTexts(const HotsetOptions& options, const std::vector<TextFile>& texts,
                  const std::vector<TextFile>& held_out_texts, CorpusCounter& counter,
                  CorpusFigures& figures) {
  TextCorpus corpus;
  Holdout holdout(held_out_texts.empty() ? options.holdout : 0);
  const uint64_t total = TotalBytes(texts) + TotalBytes(held_out_texts);
  uint64_t done = 0;
  const auto count = [&](const TextFile& file, bool all_held_out) {
    const Status status = corpus.Visit(file, [&](const TextCorpus::Piece& piece) {
      if (options.on_progress) options.on_progress(done, total);
      done += piece.text.size();
      return counter.Count(piece, all_held_out || holdout.Take(piece.text.size()));
    });
    return status.ok() ? status : status.WithContext("counting " + file.path);
  };
  for (const TextFile& file : texts) RETURN_IF_ERROR(count(file, false));
  for (const TextFile& file : held_out_texts) RETURN_IF_ERROR(count(file, true));
  figures.documents = corpus.documents();
  figures.bytes = corpus.bytes();
  figures.duplicates = corpus.duplicates();
  figures.not_text = corpus.not_text();
  figures.tokens_seen = counter.tokens_seen();
  figures.tokens_held_out = counter.tokens_held_out();
  if (counter.tokens_seen() > 0) return OkStatus();
  return InvalidArgument(fmt::format("there is no text to count in {}", options.texts));
}

uint64_t NgramsToKeep(const HotsetOptions& options, const Hotset& made) {
  if (options.pinned_bytes_max == 0) return options.ngrams_max;
  const uint64_t rows =
      memnode::PinnedRows::RowsThatFit(options.pinned_bytes_max, made.stored_row_bytes);
  return std::min(options.ngrams_max, rows / made.rows_per_ngram);
}

void Keep(const HotsetOptions& options, const std::vector<OrderCounts>& counts,
          const std::vector<Ranking>& rankings, Hotset& made) {
  static const Ranking kNone;
  std::vector<const Ranking*> wanted;
  for (size_t i = 0; i < counts.size(); ++i) {
    const bool keep = options.orders.empty() ||
                      std::find(options.orders.begin(), options.orders.end(), counts[i].order) !=
                          options.orders.end();
    wanted.push_back(keep ? &rankings[i] : &kNone);
  }
  made.hot_set.orders.resize(counts.size());
  const uint64_t keep = NgramsToKeep(options, made);
  VisitByCount(wanted, [&](size_t i, const NgramCounter::Ranked& entry) {
    if (made.ngrams_kept == keep) return false;
    const std::span<const uint32_t> ngram = counts[i].seen.NgramAt(entry.slot);
    table::HotSet::Order& order = made.hot_set.orders[i];
    order.ids.insert(order.ids.end(), ngram.begin(), ngram.end());
    order.counts.push_back(entry.count);
    ++made.ngrams_kept;
    return true;
  });
}

std::string Describe(const HotsetOptions& options, const Hotset& made) {
  std::string text =
      fmt::format("{} documents, {} bytes, {} of {} tokens counted, tokenizer of {}: {}",
                  made.corpus.documents, made.corpus.bytes, made.corpus.tokens_seen,
                  made.corpus.tokens_seen + made.corpus.tokens_held_out, made.model,
                  fmt::join(options.texts, ", "));
  if (text.size() > table::kHotSetCorpusBytesMax) text.resize(table::kHotSetCorpusBytesMax);
  return text;
}

void DescribeModel(const client::ModelTables& model, Hotset& made) {
  made.model = model.identity.model;
  made.raw_vocab_size = model.map.raw_size();
  made.rows_per_ngram =
      static_cast<uint64_t>(model.layout.heads_per_order) * model.layout.layers.size();
  made.stored_row_bytes = table::StoredRowBytes(model.layout.row_format.row_bytes());
  made.hot_set.max_ngram_size = static_cast<uint32_t>(model.layout.max_ngram_size);
  made.hot_set.compressed_vocab_size = model.layout.compressed_vocab_size;
  made.hot_set.pad_compressed = model.layout.pad_compressed;
  made.hot_set.token_map_digest = table::TokenMapDigest(model.map);
}

}  // namespace

Result<Hotset> MakeHotset(const HotsetOptions& options) {
  ASSIGN_OR_RETURN(const client::ModelTables model,
                   client::LoadModelTables(options.model_dir, /*model_name=*/"", /*version=*/""));
  RETURN_IF_ERROR(CheckOptions(options, model));
  ASSIGN_OR_RETURN(const text::Tokenizer tokenizer,
                   text::Tokenizer::Load(options.model_dir + "/tokenizer.json"));
  ASSIGN_OR_RETURN(const std::vector<TextFile> texts, FindTexts(options.texts));
  ASSIGN_OR_RETURN(const std::vector<TextFile> held_out_texts, FindTexts(options.texts_held_out));
  const uint64_t text_bytes = TotalBytes(texts);
  const auto held_out_bytes =
      held_out_texts.empty()
          ? static_cast<uint64_t>(std::ceil(static_cast<double>(text_bytes) * options.holdout))
          : TotalBytes(held_out_texts);
  ASSIGN_OR_RETURN(std::vector<OrderCounts> orders,
                   MakeCounters(options, model.layout.max_ngram_size, text_bytes, held_out_bytes));

  Hotset made;
  DescribeModel(model, made);
  CorpusCounter counter(model, tokenizer, std::move(orders));
  RETURN_IF_ERROR(CountTexts(options, texts, held_out_texts, counter, made.corpus));
  std::vector<Ranking> rankings;
  for (const OrderCounts& order : counter.orders()) {
    rankings.push_back(order.seen.Rank());
    made.curves.push_back(CurveOf(order, rankings.back()));
  }
  made.curves.push_back(JointCurve(counter.orders(), rankings));
  Keep(options, counter.orders(), rankings, made);
  made.hot_set.tokens_counted = made.corpus.tokens_seen;
  made.hot_set.corpus = Describe(options, made);
  return made;
}

}  // namespace engram::ctl
