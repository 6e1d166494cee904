// A small byte-level tokenizer: "<eos>" is 0, byte b is 1 + its place in the byte alphabet.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "common/io/json.h"
#include "common/text/bpe_trainer.h"
#include "common/text/tokenizer.h"

namespace engram::compute {

inline text::Tokenizer TinyTokenizer() {
  const std::string special[] = {"<eos>"};
  const auto document =
      text::TrainTokenizer("the cat sat on the mat, the end of the cat", 262, special);
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
