// What our tokenizer makes of a tokenizer.json, for tests that compare it with another's.
//
//   tokenizer_probe FILE < lines, each a JSON string
//
// Prints one JSON object: "decoded" and "raw" of every single id, the compressed vocabulary "map",
// and of each line its "ids" and their "texts".
#include <fmt/format.h>

#include <cstdio>
#include <iostream>

#include "common/checkpoint/model_tables.h"
#include "common/io/json.h"
#include "common/text/tokenizer.h"

namespace engram {
namespace {

Result<json::object> Probe(const std::string& path) {
  ASSIGN_OR_RETURN(const text::Tokenizer tokenizer, text::Tokenizer::Load(path));
  ASSIGN_OR_RETURN(const table::VocabMap map, client::MapOfTokenizer(path));
  json::array decoded, raw, compressed, ids, texts;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    ASSIGN_OR_RETURN(const std::string bytes, tokenizer.Decode({&id, 1}));
    ASSIGN_OR_RETURN(const std::string spelling, tokenizer.RawToken(id));
    ASSIGN_OR_RETURN(const int64_t small, map.Compress(id));
    decoded.emplace_back(text::ReplaceInvalidUtf8(bytes));
    raw.emplace_back(spelling);
    compressed.emplace_back(small);
  }
  for (std::string line; std::getline(std::cin, line);) {
    ASSIGN_OR_RETURN(const json::value value, io::ParseJson(line, "line"));
    if (!value.is_string()) return InvalidArgument("a line is no JSON string");
    ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, tokenizer.Encode(value.get_string()));
    ASSIGN_OR_RETURN(const std::string bytes, tokenizer.Decode(tokens));
    ids.emplace_back(json::array(tokens.begin(), tokens.end()));
    texts.emplace_back(text::ReplaceInvalidUtf8(bytes));
  }
  return json::object{
      {"decoded", decoded}, {"raw", raw}, {"map", compressed}, {"ids", ids}, {"texts", texts}};
}

}  // namespace
}  // namespace engram

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: tokenizer_probe FILE\n");
    return 2;
  }
  const auto result = engram::Probe(argv[1]);
  if (!result.ok()) {
    fmt::print(stderr, "tokenizer_probe: {}\n", result.status().ToString());
    return 1;
  }
  fmt::print("{}\n", engram::json::serialize(*result));
  return 0;
}
