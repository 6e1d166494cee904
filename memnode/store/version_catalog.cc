#include "memnode/store/version_catalog.h"

#include <fmt/format.h>

#include <charconv>
#include <map>
#include <utility>

#include "common/io/json.h"
#include "memnode/store/import_progress.h"

namespace engram::memnode {
namespace {

constexpr char kCatalog[] = "catalog/";
constexpr char kDropping[] = "dropping/";

std::string KeyOf(std::string_view kind, const std::string& model, const std::string& version) {
  return fmt::format("{}{:016x}", kind, TableSetIdOf(model, version));
}

Result<uint64_t> ReadNumber(const json::object& object, std::string_view key) {
  ASSIGN_OR_RETURN(const std::string text, io::GetString(object, key, "catalog"));
  uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return value;
  return DataLoss(fmt::format("the catalog of versions is damaged: {} is \"{}\"", key, text));
}

Result<VersionInfo> ParseCatalogRecord(const std::string& text) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJson(text, "catalog"));
  if (!value.is_object()) return DataLoss("the catalog of versions is damaged: no object");
  const json::object& object = value.get_object();
  VersionInfo info;
  ASSIGN_OR_RETURN(info.model, io::GetString(object, "model", "catalog"));
  ASSIGN_OR_RETURN(info.version, io::GetString(object, "version", "catalog"));
  ASSIGN_OR_RETURN(info.generation, ReadNumber(object, "generation"));
  ASSIGN_OR_RETURN(info.published, io::GetBool(object, "published", "catalog"));
  ASSIGN_OR_RETURN(const bool promised, io::GetBool(object, "prepared", "catalog"));
  if (promised) {
    ASSIGN_OR_RETURN(info.promised_generation, ReadNumber(object, "prepared_generation"));
  }
  ASSIGN_OR_RETURN(info.pinned, io::GetBool(object, "pinned", "catalog"));
  if (object.contains("rolled_back")) {  // not in records of older nodes
    ASSIGN_OR_RETURN(info.rolled_back, io::GetBool(object, "rolled_back", "catalog"));
  }
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
