#include "memnode/upkeep/row_description.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/base/sha256.h"
#include "common/io/object_reader.h"
#include "common/table/owners.h"
#include "common/table/row_check.h"
#include "common/table/row_codec.h"
#include "memnode/store/manifest.h"
#include "memnode/store/page.h"
#include "memnode/store/table_plan.h"
#include "memnode/store/table_reader.h"

namespace engram::memnode {
namespace {

constexpr std::string_view kWhat = "row description";
constexpr size_t kBytesPerLine = 32;
constexpr size_t kValuesPerLine = 8;
constexpr size_t kValuesMax = 1 << 20;         // of a row
constexpr int64_t kNumberMax = INT64_MAX / 2;  // two of them can be added

struct Place {
  uint32_t layer_index = 0;
  table::LayerPartitions cut;
  uint64_t row = 0;
};

Result<Place> FindPlace(const table::TableIdentity& identity, uint32_t row_bytes, int layer_id,
                        uint64_t row) {
  std::string ids;
  for (uint32_t i = 0; i < identity.layers.size(); ++i) {
    const table::TableIdentity::Layer& layer = identity.layers[i];
    if (layer.layer_id == layer_id) {
      if (row >= layer.total_rows) {
        return OutOfRange(fmt::format("layer {} of {} has {} rows, and no row {}", layer_id,
                                      identity.model, layer.total_rows, row));
      }
      return Place{i, table::CutLayer(layer.total_rows, row_bytes), row};
    }
    ids += fmt::format("{}{}", ids.empty() ? "" : ", ", layer.layer_id);
  }
  return NotFound(fmt::format("{} version {} has Engram layers {}, and no layer {}", identity.model,
                              identity.version, ids, layer_id));
}

// The names of the members that hold the row's partition.
std::string OwnersOf(const Manifest& manifest, const table::RowFormat& format, const Place& place) {
  std::vector<table::LayerPartitions> cuts;
  for (const table::TableIdentity::Layer& layer : manifest.identity.layers) {
    cuts.push_back(table::CutLayer(layer.total_rows, format.row_bytes()));
  }
  const table::OwnerTable owners(manifest.map, cuts);
  std::string names;
  for (const uint16_t owner : owners.Of(place.layer_index, place.cut.PartitionOf(place.row))) {
    names += (names.empty() ? "" : ", ") + manifest.map.members[owner];
  }
  return names;
}

json::object Describe(const table::TableIdentity& identity, const table::RowFormat& format,
                      const Place& place, std::span<const std::byte> bytes) {
  const table::LayerPartitions& cut = place.cut;
  const uint32_t partition = cut.PartitionOf(place.row);
  const uint64_t page = place.row / cut.rows_per_page;
  const uint32_t per_file = PartitionsPerFile(cut, format.row_bytes());
  const uint32_t first_of_file = partition / per_file * per_file;
  std::vector<float> values(static_cast<size_t>(format.head_dim));
  table::DecodeRow(format, bytes, values);
  json::array decoded;
  for (const float value : values) decoded.emplace_back(fmt::format("{}", value));
  Sha256 hash;
  hash.Update(bytes);
  const auto number = [](uint64_t value) { return static_cast<int64_t>(value); };
  return {
      {"model", identity.model},
      {"version", identity.version},
      {"layer_id", identity.layers[place.layer_index].layer_id},
      {"row", number(place.row)},
      {"encoding", identity.row_encoding},
      {"head_dim", format.head_dim},
      {"bytes", ToHex({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()})},
      {"row_check", fmt::format("{:08x}", table::RowCheck(place.layer_index, place.row, bytes))},
      {"sha256", ToHex(hash.Finish())},
      {"values", std::move(decoded)},
      {"partition", number(partition)},
      {"first_row_of_partition", number(cut.FirstRow(partition))},
      {"rows_of_partition", number(cut.RowCount(partition))},
      {"page", number(page)},
      {"row_in_page", number(place.row % cut.rows_per_page)},
      {"rows_of_page",
       number(std::min<uint64_t>(cut.rows_per_page, cut.total_rows - page * cut.rows_per_page))},
      {"first_partition_of_file", number(first_of_file)},
      {"last_partition_of_file",
       number(std::min<uint32_t>(first_of_file + per_file, cut.partition_count) - 1)}};
}

// As the page's trailer has it (page.h).
uint32_t CrcOfTrailer(std::string_view page) {
  uint32_t crc = 0;
  CHECK(page.size() >= kPageTrailerBytes);
  std::memcpy(&crc, page.data() + page.size() - kPageTrailerBytes, sizeof(crc));
  return crc;
}

// The version whose file holds a page.
Result<std::string> HolderVersion(RowStore& store, const TableReader& reader, uint32_t layer_index,
                                  uint64_t page) {
  const TableSetId holder = reader.HolderOf(layer_index, page);
  const std::string& model = reader.manifest().identity.model;
  std::string version = reader.manifest().identity.version;
  std::string base = reader.manifest().base_version;
  while (TableSetIdOf(model, version) != holder && !base.empty()) {
    version = base;
    ASSIGN_OR_RETURN(const auto manifest, FindManifest(store, model, version));
    if (!manifest) break;
    base = manifest->base_version;
  }
  return version;
}

std::string HexLines(std::string_view hex) {
  std::string lines;
  for (size_t at = 0; at < hex.size(); at += 2 * kBytesPerLine) {
    lines += fmt::format("  {:04x}  {}\n", at / 2, hex.substr(at, 2 * kBytesPerLine));
  }
  return lines;
}

Result<std::string> ValueLines(const json::array& values) {
  std::string lines;
  size_t index = 0;
  for (const json::value& value : values) {
    if (!value.is_string()) return InvalidArgument(fmt::format("{}: values", kWhat));
    if (index % kValuesPerLine == 0) lines += fmt::format("  {:>4} ", index);
    lines += fmt::format(" {:>14}", std::string_view(value.get_string()));
    if (++index % kValuesPerLine == 0) lines += '\n';
  }
  if (!lines.empty() && lines.back() != '\n') lines += '\n';
  return lines;
}

}  // namespace

Result<json::object> DescribeStoredRow(RowStore& store, const std::string& model,
                                       const std::string& version, int layer_id, uint64_t row) {
  ASSIGN_OR_RETURN(auto manifest, FindManifest(store, model, version));
  if (!manifest) {
    return NotFound(fmt::format("the store has no complete {} version {}", model, version));
  }
  ASSIGN_OR_RETURN(const table::RowFormat format, FormatOf(manifest->identity));
  ASSIGN_OR_RETURN(const Place place,
                   FindPlace(manifest->identity, format.row_bytes(), layer_id, row));
  ASSIGN_OR_RETURN(const auto reader, TableReader::Open(store, std::move(*manifest)));
  const Manifest::Layer& layer = reader->manifest().layers[place.layer_index];
  const uint32_t partition = place.cut.PartitionOf(row);
  const std::string owner = OwnersOf(reader->manifest(), format, place);
  if (!std::binary_search(layer.held.begin(), layer.held.end(), partition)) {
    return NotFound(
        fmt::format("row {} of layer {} lies in partition {}, which {} holds and this "
                    "store does not",
                    row, layer_id, partition, owner));
  }
  const uint64_t page = reader->PageOfRow(place.layer_index, row);
  std::string scratch;
  ASSIGN_OR_RETURN(const auto rows, reader->ReadPage(place.layer_index, page, &scratch));
  const uint64_t in_page = row - reader->FirstRowOfPage(place.layer_index, page);
  json::object description =
      Describe(reader->manifest().identity, format, place,
               rows.subspan(in_page * format.row_bytes(), format.row_bytes()));
  ASSIGN_OR_RETURN(description["holder_version"],
                   HolderVersion(store, *reader, place.layer_index, page));
  description["owner"] = owner;
  description["page_crc32c"] = fmt::format("{:08x}", CrcOfTrailer(scratch));
  description["partition_sha256"] = ToHex(layer.digests[partition]);
  return description;
}

Result<json::object> DescribeSourceRow(const client::ModelTables& model,
                                       const client::TableSource& source, int layer_id,
                                       uint64_t row) {
  const table::RowFormat& format = source.row_format();
  ASSIGN_OR_RETURN(const Place place, FindPlace(model.identity, format.row_bytes(), layer_id, row));
  std::vector<std::byte> bytes(format.row_bytes());
  RETURN_IF_ERROR(source.ReadRows(place.layer_index, row, 1, bytes.data()));
  return Describe(model.identity, format, place, bytes);
}

Result<std::string> RowText(const json::object& description) {
  io::ObjectReader read(description, kWhat);
  const auto text = [&](std::string_view key) {
    std::string value;
    read.String(key, value);
    return value;
  };
  const auto number = [&](std::string_view key) {
    int64_t value = 0;
    read.Int(key, 0, kNumberMax, value);
    return value;
  };
  const std::string bytes = text("bytes");
  std::string lines = fmt::format(
      "{} version {}, layer {}, row {}: {} x {}, {} bytes\n"
      "page {} (row {} of {}), partition {} (rows {}..{}), file of partitions {}..{}\n",
      text("model"), text("version"), number("layer_id"), number("row"), text("encoding"),
      number("head_dim"), bytes.size() / 2, number("page"), number("row_in_page"),
      number("rows_of_page"), number("partition"), number("first_row_of_partition"),
      number("first_row_of_partition") + number("rows_of_partition") - 1,
      number("first_partition_of_file"), number("last_partition_of_file"));
  if (read.Has("owner")) {
    lines += fmt::format(
        "owner {}, page stored by version {}\npage CRC-32C {}, partition SHA-256 {}\n",
        text("owner"), text("holder_version"), text("page_crc32c"), text("partition_sha256"));
  }
  ASSIGN_OR_RETURN(const std::string values, ValueLines(read.Array("values", kValuesMax)));
  lines += fmt::format("row check {}, row SHA-256 {}\nraw\n{}values\n{}", text("row_check"),
                       text("sha256"), HexLines(bytes), values);
  RETURN_IF_ERROR(read.status());
  return lines;
}

}  // namespace engram::memnode
