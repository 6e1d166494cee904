// Counting a corpus: texts become tokens as the model sees them, their n-grams are counted, and of
// the text held out it is measured what the most frequent of the others would have served.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/table/hot_set.h"

namespace engram::ctl {

struct HotsetOptions {
  std::string model_dir;
  std::vector<std::string> texts;  // files, and folders: all files below them
  double holdout = 0.1;            // share of the text, by bytes, that is not counted
  std::vector<int> orders;         // to keep; empty: all
  uint64_t ngrams_max = 0;         // to keep; 0: by `pinned_bytes_max`
  uint64_t pinned_bytes_max = 0;   // of a node's memory for their rows; 0: by `ngrams_max`
  uint64_t memory_bytes = uint64_t{2} << 30;  // for counting
};

// Shares of positions whose n-gram is among the `top` most frequent of the counted text.
struct CurvePoint {
  uint64_t top = 0;
  double seen = 0;
  double held_out = 0;
};

struct Curve {
  int order = 0;  // 0: all orders together, ranked as one list; shares of row reads
  uint64_t seen_positions = 0;
  uint64_t held_out_positions = 0;
  uint64_t distinct = 0;     // of the counted text, at least
  uint64_t count_error = 0;  // counts may be too low by this; 0: exact
  std::vector<CurvePoint> points;
};

struct Corpus {
  uint64_t documents = 0;
  uint64_t bytes = 0;
  uint64_t tokens = 0;
  uint64_t held_out_tokens = 0;
  uint64_t duplicates = 0;  // files left out: their bytes had been there
  uint64_t not_text = 0;    // files of folders left out: they hold a zero byte, or nothing
};

struct Hotset {
  table::HotSet hot_set;
  Corpus corpus;
  std::vector<Curve> curves;  // one an order, then all of them together
  uint64_t raw_vocab_size = 0;
  uint64_t ngrams_kept = 0;
  uint64_t rows_per_ngram = 0;
  uint64_t pinned_bytes = 0;  // at most, of the rows of what was kept
};

// INVALID_ARGUMENT, NOT_FOUND: name the file or the option.
Result<Hotset> MakeHotset(const HotsetOptions& options);

}  // namespace engram::ctl
