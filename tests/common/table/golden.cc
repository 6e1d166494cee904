#include "tests/common/table/golden.h"

#include <gtest/gtest.h>

namespace engram::table {
namespace {

void FlattenInto(const json::value& value, std::vector<int64_t>& out) {
  if (value.is_array()) {
    for (const json::value& item : value.get_array()) FlattenInto(item, out);
  } else if (value.is_string()) {
    out.push_back(std::stoll(std::string(value.get_string())));
  } else {
    out.push_back(value.get_int64());
  }
}

int IntAt(const json::object& object, const char* key) {
  return static_cast<int>(object.at(key).get_int64());
}

}  // namespace

json::object ReadGolden(const std::string& name) {
  Result<json::value> value =
      io::ParseJsonFile(std::string(ENGRAM_SOURCE_DIR) + "/tests/golden/" + name + ".json");
  CHECK(value.ok()) << value.status().ToString();
  return value->get_object();
}

std::vector<int64_t> Flatten(const json::value& value) {
  std::vector<int64_t> flat;
  FlattenInto(value, flat);
  return flat;
}

HashGolden::HashGolden(const std::string& name) : object(ReadGolden(name)) {
  const json::object& given = object.at("config").get_object();
  for (const int64_t id : Flatten(given.at("layer_ids")))
    config.layer_ids.push_back(static_cast<int>(id));
  config.max_ngram_size = IntAt(given, "max_ngram_size");
  config.heads_per_order = IntAt(given, "n_head_per_ngram");
  config.head_dim = IntAt(given, "n_embed_per_ngram") / config.heads_per_order;
  for (const int64_t size : Flatten(given.at("engram_vocab_size")))
    config.requested_vocab_sizes.push_back(static_cast<uint64_t>(size));
  config.seed = static_cast<uint64_t>(given.at("seed").get_int64());
  Result<TableLayout> made =
      MakeLayout(config, static_cast<uint64_t>(object.at("compressed_vocab_size").get_int64()),
                 object.at("pad_id_compressed").get_int64(), RowEncoding::kBf16);
  CHECK(made.ok()) << made.status().ToString();
  layout = *std::move(made);
  for (const json::value& sequence : object.at("compressed_ids").get_array())
    sequences.push_back(Flatten(sequence));
}

const json::value& HashGolden::OfLayer(std::string_view member, int layer_id) const {
  return object.at(member).get_object().at(std::to_string(layer_id));
}

}  // namespace engram::table
