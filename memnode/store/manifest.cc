#include "memnode/store/manifest.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/io/json.h"

namespace engram::memnode {
namespace {

constexpr int64_t kFormat = 2;
constexpr char kManifests[] = "manifest/";

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// Digests one after the other, 64 digits each.
bool ParseDigests(std::string_view text, std::vector<Sha256Digest>* digests) {
  constexpr size_t kDigits = 2 * sizeof(Sha256Digest);
  if (text.size() % kDigits != 0) return false;
  digests->resize(text.size() / kDigits);
  for (size_t i = 0; i < text.size(); i += 2) {
    const int high = HexValue(text[i]);
    const int low = HexValue(text[i + 1]);
    if (high < 0 || low < 0) return false;
    (*digests)[i / kDigits][i % kDigits / 2] = static_cast<uint8_t>(high * 16 + low);
  }
  return true;
}

const json::array* ArrayOf(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr ? nullptr : value->if_array();
}

bool ParseLayer(const json::value& value, Manifest::Layer* layer) {
  const json::object* object = value.if_object();
  if (object == nullptr) return false;
  const json::array* held = ArrayOf(*object, "held");
  const auto digests = io::GetString(*object, "digests", "manifest");
  if (held == nullptr || !digests.ok() || !ParseDigests(*digests, &layer->digests)) return false;
  for (const json::value& partition : *held) {
    if (!partition.is_int64()) return false;
    const int64_t index = partition.get_int64();
    if (index < 0 || index >= static_cast<int64_t>(layer->digests.size())) return false;
    layer->held.push_back(static_cast<uint32_t>(index));
  }
  return std::is_sorted(layer->held.begin(), layer->held.end());
}

Status Damaged(std::string_view what) {
  return DataLoss(fmt::format("the manifest is damaged: {}", what));
}

}  // namespace

TableSetId TableSetIdOf(const std::string& model, const std::string& version) {
  Sha256 hash;
  hash.Update(model);
  hash.Update(std::string_view("\0", 1));
  hash.Update(version);
  const Sha256Digest digest = hash.Finish();
  TableSetId id = 0;
  for (size_t i = 0; i < sizeof(id); ++i) id = (id << 8) | digest[i];
  return id;
}

std::string ContentDigest(const std::vector<Manifest::Layer>& layers) {
  Sha256 hash;
  for (const Manifest::Layer& layer : layers) {
    for (const Sha256Digest& digest : layer.digests) {
      hash.Update(std::as_bytes(std::span(digest)));
    }
  }
  return ToHex(hash.Finish());
}

std::string ManifestToText(const Manifest& manifest) {
  json::array layers;
  for (const Manifest::Layer& layer : manifest.layers) {
    std::string digests;
    for (const Sha256Digest& digest : layer.digests) digests += ToHex(digest);
    layers.push_back(json::object{{"held", json::value_from(layer.held)}, {"digests", digests}});
  }
  json::object text = table::ToJson(manifest.map);
  text["format"] = kFormat;
  text["identity"] = table::ToJson(manifest.identity);
  text["layers"] = std::move(layers);
  text["base_version"] = manifest.base_version;
  text["source"] = manifest.source;
  return json::serialize(text);
}

Result<Manifest> ParseManifest(std::string_view text) {
  ASSIGN_OR_RETURN(const json::value document, io::ParseJson(text, "manifest"));
  const json::object* object = document.if_object();
  if (object == nullptr) return Damaged("it is no object");
  ASSIGN_OR_RETURN(const int64_t format, io::GetInt(*object, "format", "manifest"));
  if (format != kFormat) {
    return FailedPrecondition(fmt::format(
        "the store was written in format {}, this build reads {}: use another store.path", format,
        kFormat));
  }
  Manifest manifest;
  const json::value* identity = object->if_contains("identity");
  if (identity == nullptr || !identity->is_object()) return Damaged("no identity");
  ASSIGN_OR_RETURN(manifest.identity, table::IdentityFromJson(identity->get_object()));
  const auto map = table::MapFromJson(*object);
  if (!map.ok()) return Damaged(map.status().message());
  manifest.map = *map;
  ASSIGN_OR_RETURN(manifest.base_version, io::GetString(*object, "base_version", "manifest"));
  ASSIGN_OR_RETURN(manifest.source, io::GetString(*object, "source", "manifest"));
  const json::array* layers = ArrayOf(*object, "layers");
  if (layers == nullptr || layers->size() != manifest.identity.layers.size()) {
    return Damaged("its layers are not those of the identity");
  }
  for (const json::value& value : *layers) {
    if (!ParseLayer(value, &manifest.layers.emplace_back())) return Damaged("a layer's partitions");
  }
  if (ContentDigest(manifest.layers) != manifest.identity.content_digest) {
    return Damaged("partition digests do not add up to the content digest");
  }
  return manifest;
}

Result<std::optional<Manifest>> FindManifest(RowStore& store, const std::string& model,
                                             const std::string& version) {
  const std::string key = fmt::format("{}{:016x}", kManifests, TableSetIdOf(model, version));
  ASSIGN_OR_RETURN(const auto records, store.ReadRecords(key));
  if (records.empty()) return std::optional<Manifest>();
  auto manifest = ParseManifest(records.begin()->second);
  if (!manifest.ok()) {
    return manifest.status().WithContext(
        fmt::format("table set {} version {} in the store", model, version));
  }
  return std::optional<Manifest>(std::move(*manifest));
}

Result<std::vector<Manifest>> AllManifests(RowStore& store) {
  ASSIGN_OR_RETURN(const auto records, store.ReadRecords(kManifests));
  std::vector<Manifest> manifests;
  for (const auto& [key, text] : records) {
    auto manifest = ParseManifest(text);
    if (!manifest.ok()) return manifest.status().WithContext(key + " in the store");
    manifests.push_back(std::move(*manifest));
  }
  return manifests;
}

std::string ManifestKey(const std::string& model, const std::string& version) {
  return fmt::format("{}{:016x}", kManifests, TableSetIdOf(model, version));
}

RecordChange ManifestRecord(const Manifest& manifest) {
  return {ManifestKey(manifest.identity.model, manifest.identity.version),
          ManifestToText(manifest)};
}

Status DropTableSet(RowStore& store, const std::string& model, const std::string& version) {
  const TableSetId id = TableSetIdOf(model, version);
  std::vector<RecordChange> gone;
  for (const std::string_view kind : {"manifest", "changed", "import", "scrub", "resident"}) {
    ASSIGN_OR_RETURN(const auto records, store.ReadRecords(fmt::format("{}/{:016x}", kind, id)));
    for (const auto& [key, value] : records) gone.push_back({key, std::nullopt});
  }
  RETURN_IF_ERROR(store.WriteDrop(gone));
  return store.DropPages(id);
}

bool Covers(const Manifest& manifest, const TablePlan& plan) {
  if (manifest.layers.size() != plan.layers.size()) return false;
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const Manifest::Layer& held = manifest.layers[i];
    const std::vector<uint32_t>& owned = plan.layers[i].owned;
    if (held.digests.size() != plan.layers[i].cut.partition_count) return false;
    if (!std::includes(held.held.begin(), held.held.end(), owned.begin(), owned.end())) {
      return false;
    }
  }
  return true;
}

}  // namespace engram::memnode
