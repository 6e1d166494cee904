// A small byte-level tokenizer: "<eos>" is 0, then what else is special, then the bytes in the
// order of the byte alphabet.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/io/json.h"
#include "common/text/bpe_trainer.h"
#include "common/text/tokenizer.h"

namespace engram::compute {

inline text::Tokenizer TinyTokenizer(std::vector<std::string> special = {}) {
  special.insert(special.begin(), "<eos>");
  const auto document = text::TrainTokenizer("the cat sat on the mat, the end of the cat",
                                             261 + static_cast<int>(special.size()), special);
  CHECK(document.ok()) << document.status().message();
  const std::string path = std::filesystem::temp_directory_path() /
                           ("tiny_tokenizer." + std::to_string(getpid()) + ".json");
  std::ofstream(path) << json::serialize(*document);
  auto tokenizer = text::Tokenizer::Load(path);
  std::filesystem::remove(path);
  CHECK(tokenizer.ok()) << tokenizer.status().message();
  return std::move(*tokenizer);
}

}  // namespace engram::compute
