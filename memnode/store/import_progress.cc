#include "memnode/store/import_progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "memnode/store/manifest.h"

namespace engram::memnode {
namespace {

constexpr char kPurpose[] = "purpose";
constexpr char kNames[] = "importing/";
// What a page may belong to: complete, being imported ("import/" by older builds), being dropped.
constexpr std::array<std::string_view, 4> kOwners = {"manifest/", kNames, "dropping/", "import/"};

std::string Prefix(TableSetId id) { return fmt::format("import/{:016x}/", id); }

bool ParseNumber(std::string_view text, uint32_t* value) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *value);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

}  // namespace

Result<ImportProgressRecords> ReadImportProgress(RowStore& store, TableSetId id) {
  const std::string prefix = Prefix(id);
  ASSIGN_OR_RETURN(const auto records, store.ReadRecords(prefix));
  ImportProgressRecords progress;
  for (const auto& [key, value] : records) {
    const std::string_view rest = std::string_view(key).substr(prefix.size());
    if (rest == kPurpose) {
      progress.purpose = value;
      continue;
    }
    const size_t slash = rest.find('/');
    uint32_t layer_index = 0, first = 0;
    if (slash == std::string_view::npos || !ParseNumber(rest.substr(0, slash), &layer_index) ||
        !ParseNumber(rest.substr(slash + 1), &first) || value.size() % sizeof(Sha256Digest) != 0) {
      continue;
    }
    std::vector<Sha256Digest> digests(value.size() / sizeof(Sha256Digest));
    std::memcpy(digests.data(), value.data(), value.size());
    progress.groups[{layer_index, first}] = std::move(digests);
  }
  return progress;
}

RecordChange ImportNameRecord(const std::string& model, const std::string& version) {
  return {fmt::format("{}{:016x}", kNames, TableSetIdOf(model, version)), model + "\n" + version};
}

RecordChange ImportNameGone(TableSetId id) {
  return {fmt::format("{}{:016x}", kNames, id), std::nullopt};
}

RecordChange ImportPurposeRecord(TableSetId id, const std::string& purpose) {
  return {Prefix(id) + kPurpose, purpose};
}

RecordChange ImportGroupRecord(TableSetId id, uint32_t layer_index, uint32_t first,
                               std::span<const Sha256Digest> digests) {
  return {fmt::format("{}{}/{}", Prefix(id), layer_index, first),
          std::string(reinterpret_cast<const char*>(digests.data()), digests.size_bytes())};
}

Result<std::vector<RecordChange>> ImportProgressGone(RowStore& store, TableSetId id) {
  ASSIGN_OR_RETURN(const auto records, store.ReadRecords(Prefix(id)));
  std::vector<RecordChange> gone;
  for (const auto& [key, value] : records) gone.push_back({key, std::nullopt});
  return gone;
}

Status DropImportProgress(RowStore& store, TableSetId id) {
  ASSIGN_OR_RETURN(const std::vector<RecordChange> gone, ImportProgressGone(store, id));
  return store.WriteRecords(gone);
}

Result<std::vector<IncompleteImport>> IncompleteImports(RowStore& store) {
  ASSIGN_OR_RETURN(const auto records, store.ReadRecords(kNames));
  std::vector<IncompleteImport> incomplete;
  for (const auto& [key, text] : records) {
    const size_t end = text.find('\n');
    if (end == std::string::npos) return DataLoss(fmt::format("record {} is damaged", key));
    IncompleteImport import;
    import.model = text.substr(0, end);
    import.version = text.substr(end + 1);
    import.id = TableSetIdOf(import.model, import.version);
    // Imported again, for other members: its bytes are those of the complete version.
    ASSIGN_OR_RETURN(const auto manifest,
                     store.ReadRecords(ManifestKey(import.model, import.version)));
    if (manifest.empty()) incomplete.push_back(std::move(import));
  }
  return incomplete;
}

Result<bool> IsIncomplete(RowStore& store, const std::string& model, const std::string& version) {
  ASSIGN_OR_RETURN(const std::vector<IncompleteImport> all, IncompleteImports(store));
  return std::any_of(all.begin(), all.end(), [&](const IncompleteImport& import) {
    return import.model == model && import.version == version;
  });
}

Status CheckPagesAreNamed(RowStore& store, const std::string& where) {
  ASSIGN_OR_RETURN(const auto stored, store.AllPageBytes());
  for (const auto& [id, bytes] : stored) {
    bool named = false;
    for (const std::string_view kind : kOwners) {
      ASSIGN_OR_RETURN(const auto records, store.ReadRecords(fmt::format("{}{:016x}", kind, id)));
      named = named || !records.empty();
    }
    if (named) continue;
    return DataLoss(fmt::format(
        "the store in store.path {} holds {} bytes of rows (table set {:016x}) that no record "
        "names: its catalogue was lost, with the write-ahead log or otherwise; bring the folder "
        "back from a copy, or remove it and import again",
        where, bytes, id));
  }
  return OkStatus();
}

}  // namespace engram::memnode
