#include "memnode/store/version_catalog.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "common/io/json.h"
#include "common/io/object_reader.h"
#include "memnode/store/import_progress.h"

namespace engram::memnode {
namespace {

constexpr char kCatalog[] = "catalog/";
constexpr char kDropping[] = "dropping/";

std::string KeyOf(std::string_view kind, const std::string& model, const std::string& version) {
  return fmt::format("{}{:016x}", kind, TableSetIdOf(model, version));
}

Result<VersionInfo> ParseCatalogRecord(const std::string& text) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJson(text, "catalog"));
  VersionInfo info;
  bool promised = false;
  io::ObjectReader read(value, "the catalog of versions is damaged");
  read.String("model", info.model);
  read.String("version", info.version);
  read.Number("generation", info.generation);
  read.Bool("published", info.published);
  read.Bool("prepared", promised);
  if (promised) read.Number("prepared_generation", info.promised_generation);
  read.Bool("pinned", info.pinned);
  if (read.Has("rolled_back")) read.Bool("rolled_back", info.rolled_back);  // not of older nodes
  if (!read.status().ok()) return DataLoss(read.status().message());
  return info;
}

}  // namespace

RecordChange CatalogRecord(const VersionInfo& info) {
  return {KeyOf(kCatalog, info.model, info.version),
          json::serialize(
              json::object{{"model", info.model},
                           {"version", info.version},
                           {"generation", std::to_string(info.generation)},
                           {"published", info.published},
                           {"prepared", info.promised_generation != 0},
                           {"prepared_generation", std::to_string(info.promised_generation)},
                           {"pinned", info.pinned},
                           {"rolled_back", info.rolled_back}})};
}

void DescribeManifest(const Manifest& manifest, VersionInfo& info) {
  info.model = manifest.identity.model;
  info.version = manifest.identity.version;
  info.base_version = manifest.base_version;
  info.content_digest = manifest.identity.content_digest;
  info.rows_held = 0;
  const auto format = FormatOf(manifest.identity);
  for (size_t i = 0; format.ok() && i < manifest.layers.size(); ++i) {
    const table::LayerPartitions cut =
        table::CutLayer(manifest.identity.layers[i].total_rows, format->row_bytes());
    for (const uint32_t partition : manifest.layers[i].held) {
      info.rows_held += cut.RowCount(partition);
    }
  }
}

Result<std::vector<VersionInfo>> ReadVersions(RowStore& store) {
  std::map<std::pair<std::string, std::string>, VersionInfo> found;
  ASSIGN_OR_RETURN(const auto records, store.ReadRecords(kCatalog));
  for (const auto& [key, text] : records) {
    ASSIGN_OR_RETURN(VersionInfo info, ParseCatalogRecord(text));
    found[{info.model, info.version}] = std::move(info);
  }
  ASSIGN_OR_RETURN(const std::vector<Manifest> manifests, AllManifests(store));
  for (const Manifest& manifest : manifests) {
    DescribeManifest(manifest, found[{manifest.identity.model, manifest.identity.version}]);
  }
  std::vector<VersionInfo> versions;
  for (auto& [key, info] : found) versions.push_back(std::move(info));
  return versions;
}

Status BeginDrop(RowStore& store, const std::string& model, const std::string& version) {
  const std::vector<RecordChange> begun = {
      {KeyOf(kDropping, model, version), model + "\n" + version},
      {KeyOf(kCatalog, model, version), std::nullopt},
      {ManifestKey(model, version), std::nullopt}};
  return store.WriteDrop(begun);
}

Result<bool> EndDrop(RowStore& store, const std::string& model, const std::string& version) {
  std::vector<RecordChange> ended = {{KeyOf(kDropping, model, version), std::nullopt}};
  ASSIGN_OR_RETURN(const auto dropping, store.ReadRecords(ended[0].key));
  if (dropping.empty()) return false;
  // A manifest is one of an import since: what was to be dropped has been written over.
  ASSIGN_OR_RETURN(const auto manifest, store.ReadRecords(ManifestKey(model, version)));
  if (manifest.empty()) {
    RETURN_IF_ERROR(DropTableSet(store, model, version));
    ended.push_back(ImportNameGone(TableSetIdOf(model, version)));
  }
  RETURN_IF_ERROR(store.WriteDrop(ended));
  return true;
}

Status EndAllDrops(RowStore& store) {
  ASSIGN_OR_RETURN(const auto dropping, store.ReadRecords(kDropping));
  for (const auto& [key, text] : dropping) {
    const size_t end = text.find('\n');
    if (end == std::string::npos) return DataLoss(fmt::format("record {} is damaged", key));
    RETURN_IF_ERROR(EndDrop(store, text.substr(0, end), text.substr(end + 1)).status());
  }
  return OkStatus();
}

}  // namespace engram::memnode
