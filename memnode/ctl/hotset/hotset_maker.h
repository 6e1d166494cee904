// Counts a corpus: texts become tokens as the model sees them, their n-grams are counted, and the
// share of held-out text that the most frequent n-grams would serve is measured.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/table/hot_set.h"

namespace engram::ctl {

struct HotsetOptions {
  std::string model_dir;
  std::vector<std::string> texts;  // files, and folders: all text below them
  // Text that is not counted but measured: `texts_held_out`, else about this share of `texts`, by
  // whole files and, of larger ones, pieces of 1 MiB.
  double holdout = 0.1;
  std::vector<std::string> texts_held_out;
  std::vector<int> orders;        // to keep; empty: all
  uint64_t ngrams_max = 1000000;  // to keep
  uint64_t pinned_bytes_max = 0;  // of a node's memory for their rows; 0: by ngrams_max alone
  uint64_t memory_bytes = uint64_t{2} << 30;                                   // for counting
  std::function<void(uint64_t bytes_done, uint64_t bytes_total)> on_progress;  // may be empty
};

// Shares of positions whose n-gram is among the `top` most frequent of the counted text.
struct CurvePoint {
  uint64_t top = 0;
  double seen = 0;
  double held_out = 0;
};

struct HitRateCurve {
  int order = 0;  // 0: all orders ranked as one list; shares of the rows read, then
  uint64_t seen_positions = 0;
  uint64_t held_out_positions = 0;  // 0: nothing was held out
  uint64_t distinct = 0;            // n-grams of the counted text; fewer, where some were dropped
  uint64_t count_error = 0;         // counts may be too low by this; 0: exact
  uint64_t held_out_error = 0;      // those of the text held out as well
  std::vector<CurvePoint> points;   // top = 1, 2, 5, 10, ... and `distinct`
};

struct CorpusFigures {
  uint64_t documents = 0;
  uint64_t bytes = 0;
  uint64_t duplicates = 0;  // files left out: their bytes had been there
  uint64_t not_text = 0;    // files left out: empty, or in a folder and holding a zero byte
  uint64_t tokens_seen = 0;
  uint64_t tokens_held_out = 0;
};

struct Hotset {
  table::HotSet hot_set;
  CorpusFigures corpus;
  std::vector<HitRateCurve> curves;  // one an order, then all of them together
  std::string model;
  uint64_t raw_vocab_size = 0;
  uint64_t ngrams_kept = 0;
  uint64_t rows_per_ngram = 0;  // in all layers
  uint32_t stored_row_bytes = 0;
};

// NOT_FOUND and INVALID_ARGUMENT name the file or the setting; FAILED_PRECONDITION: the model's
// rows are not found by n-grams.
Result<Hotset> MakeHotset(const HotsetOptions& options);

}  // namespace engram::ctl
