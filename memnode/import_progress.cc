#include "memnode/import_progress.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>

namespace engram::memnode {
namespace {

constexpr char kPurpose[] = "purpose";

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

}  // namespace engram::memnode
