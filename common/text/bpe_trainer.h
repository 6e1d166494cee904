// Trains a byte-level BPE tokenizer, for the models that make-model writes.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/io/json.h"

namespace engram::text {

// A tokenizer.json document with DeepSeek-V3's pre-tokenizer: ids are the special tokens as listed,
// the 256 bytes, then merges by descending count (equal counts: by the pair's bytes). The same text
// gives the same document. INVALID_ARGUMENT when the text is not UTF-8 or too small for vocab_size.
Result<json::value> TrainTokenizer(std::string_view text, int vocab_size,
                                   std::span<const std::string> special_tokens);

}  // namespace engram::text
