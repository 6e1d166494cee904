#include "common/table/identity.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/io/object_reader.h"

namespace engram::table {
namespace {

constexpr std::string_view kWhat = "table identity";
constexpr size_t kPrimesMax = static_cast<size_t>(kMaxNgramSizeMax - 1) * kHeadsMax;

// Collects the first difference.
class Comparison {
 public:
  explicit Comparison(std::string_view peer) : peer_(peer) {}

  template <typename T>
  void Field(std::string_view name, const T& ours, const T& theirs) {
    if (status_.ok() && ours != theirs) {
      status_ = FailedPrecondition(
          fmt::format("table identity differs at {}: ours is \"{}\", {} has \"{}\"", name, ours,
                      peer_, theirs));
    }
  }
  // Unknown (empty) on either side matches anything.
  void Optional(std::string_view name, const std::string& ours, const std::string& theirs) {
    if (!ours.empty() && !theirs.empty()) Field(name, ours, theirs);
  }
  template <typename T>
  void List(const std::string& name, const std::vector<T>& ours, const std::vector<T>& theirs) {
    Field(name + " count", ours.size(), theirs.size());
    for (size_t i = 0; status_.ok() && i < ours.size(); ++i) {
      Field(fmt::format("{}[{}]", name, i), ours[i], theirs[i]);
    }
  }

  const Status& status() const { return status_; }

 private:
  std::string_view peer_;
  Status status_;
};

template <typename T>
json::array Strings(const std::vector<T>& values) {
  json::array array;
  for (const T value : values) array.emplace_back(fmt::format("{}", value));
  return array;
}

json::object LayerToJson(const TableIdentity::Layer& layer) {
  return {{"layer_id", layer.layer_id},
          {"total_rows", fmt::format("{}", layer.total_rows)},
          {"multipliers", Strings(layer.multipliers)},
          {"primes", Strings(layer.primes)}};
}

TableIdentity::Layer ReadLayer(const json::value& value, io::ObjectReader& whole) {
  TableIdentity::Layer layer;
  io::ObjectReader read(value, fmt::format("{}: an item of \"layers\"", kWhat));
  read.Int("layer_id", 0, kLayerIdMax, layer.layer_id);
  read.Number("total_rows", layer.total_rows);
  read.Numbers("multipliers", kMaxNgramSizeMax, layer.multipliers);
  read.Numbers("primes", kPrimesMax, layer.primes);
  whole.Fail(read.status());
  return layer;
}

}  // namespace

TableIdentity MakeIdentity(const TableLayout& layout, std::string model, std::string version) {
  TableIdentity identity;
  identity.model = std::move(model);
  identity.version = std::move(version);
  identity.max_ngram_size = static_cast<uint32_t>(layout.max_ngram_size);
  identity.heads_per_order = static_cast<uint32_t>(layout.heads_per_order);
  identity.head_dim = static_cast<uint32_t>(layout.row_format.head_dim);
  identity.row_encoding = RowEncodingName(layout.row_format.encoding);
  identity.compressed_vocab_size = layout.compressed_vocab_size;
  identity.pad_compressed = layout.pad_compressed;
  for (const LayerLayout& layer : layout.layers) {
    identity.layers.push_back({layer.layer_id, layer.total_rows, layer.multipliers, layer.primes});
  }
  return identity;
}

Status CheckSameIdentity(const TableIdentity& ours, const TableIdentity& theirs,
                         std::string_view peer) {
  Comparison compare(peer);
  compare.Field("model", ours.model, theirs.model);
  compare.Optional("version", ours.version, theirs.version);
  compare.Field("max_ngram_size", ours.max_ngram_size, theirs.max_ngram_size);
  compare.Field("heads_per_order", ours.heads_per_order, theirs.heads_per_order);
  compare.Field("head_dim", ours.head_dim, theirs.head_dim);
  compare.Field("row_encoding", ours.row_encoding, theirs.row_encoding);
  compare.Field("compressed_vocab_size", ours.compressed_vocab_size, theirs.compressed_vocab_size);
  compare.Field("pad_compressed", ours.pad_compressed, theirs.pad_compressed);
  compare.Field("layers count", ours.layers.size(), theirs.layers.size());
  const size_t common = std::min(ours.layers.size(), theirs.layers.size());
  for (size_t i = 0; i < common; ++i) {
    const TableIdentity::Layer& mine = ours.layers[i];
    const TableIdentity::Layer& other = theirs.layers[i];
    const std::string prefix = fmt::format("layers[{}].", i);
    compare.Field(prefix + "layer_id", mine.layer_id, other.layer_id);
    compare.Field(prefix + "total_rows", mine.total_rows, other.total_rows);
    compare.List(prefix + "multipliers", mine.multipliers, other.multipliers);
    compare.List(prefix + "primes", mine.primes, other.primes);
  }
  compare.Optional("content_digest", ours.content_digest, theirs.content_digest);
  return compare.status();
}

// Signed, as the parser makes them: an object that never was text reads back too.
json::object ToJson(const TableIdentity& identity) {
  json::array layers;
  for (const TableIdentity::Layer& layer : identity.layers) layers.push_back(LayerToJson(layer));
  return {{"model", identity.model},
          {"version", identity.version},
          {"max_ngram_size", int64_t{identity.max_ngram_size}},
          {"heads_per_order", int64_t{identity.heads_per_order}},
          {"head_dim", int64_t{identity.head_dim}},
          {"row_encoding", identity.row_encoding},
          {"compressed_vocab_size", fmt::format("{}", identity.compressed_vocab_size)},
          {"pad_compressed", fmt::format("{}", identity.pad_compressed)},
          {"layers", std::move(layers)},
          {"content_digest", identity.content_digest}};
}

Result<TableIdentity> IdentityFromJson(const json::object& object) {
  TableIdentity identity;
  io::ObjectReader read(object, kWhat);
  read.String("model", identity.model);
  read.String("version", identity.version);
  read.Int("max_ngram_size", 0, kMaxNgramSizeMax, identity.max_ngram_size);
  read.Int("heads_per_order", 0, kHeadsMax, identity.heads_per_order);
  read.Int("head_dim", 0, kHeadDimMax, identity.head_dim);
  read.String("row_encoding", identity.row_encoding);
  read.Number("compressed_vocab_size", identity.compressed_vocab_size);
  read.Number("pad_compressed", identity.pad_compressed);
  for (const json::value& layer : read.Array("layers", kEngramLayersMax)) {
    identity.layers.push_back(ReadLayer(layer, read));
  }
  read.String("content_digest", identity.content_digest);
  RETURN_IF_ERROR(read.status());
  return identity;
}

}  // namespace engram::table
