#include "common/client/lookup/content_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>

#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/io/read_file.h"

namespace engram::client {
namespace {

constexpr uint64_t kSampleSeed = 20261128;
constexpr size_t kLookupRows = 8192;  // in one lookup; 2 MiB of rows
constexpr size_t kDigestDigits = 64;
constexpr size_t kDigestFileBytesMax = 4096;

Status CheckDigest(const std::string& digest, const std::string& where) {
  if (digest.size() == kDigestDigits &&
      digest.find_first_not_of("0123456789abcdef") == std::string::npos) {
    return OkStatus();
  }
  return InvalidArgument(
      fmt::format("{} is \"{:.80}\", must be {} lower-case hexadecimal digits, as engramctl digest "
                  "prints them",
                  where, digest, kDigestDigits));
}

// "" without a file.
Result<std::string> ReadDigestFile(const std::string& path) {
  if (!io::HasEntry(path)) return std::string();
  ASSIGN_OR_RETURN(std::string text, io::ReadFile(path, kDigestFileBytesMax));
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  RETURN_IF_ERROR(CheckDigest(text, "the content digest in " + path));
  return text;
}

std::string ShaOf(std::span<const std::byte> row) {
  Sha256 sha;
  sha.Update(row);
  return ToHex(sha.Finish());
}

// Neighbours are read together.
Status ReadOwn(const TableSource& own, std::span<const uint64_t> rows, std::byte* out) {
  const size_t row_bytes = own.row_format().row_bytes();
  for (size_t first = 0; first < rows.size();) {
    size_t end = first + 1;
    while (end < rows.size() && rows[end] == rows[end - 1] + 1) ++end;
    RETURN_IF_ERROR(own.ReadRows(0, rows[first], end - first, out + first * row_bytes));
    first = end;
  }
  return OkStatus();
}

}  // namespace

Result<std::string> PinnedDigest(const std::string& model_dir, const std::string& setting) {
  const std::string path = (std::filesystem::path(model_dir) / kDigestFile).string();
  ASSIGN_OR_RETURN(const std::string written, ReadDigestFile(path));
  if (setting.empty()) return written;
  RETURN_IF_ERROR(CheckDigest(setting, "engram.content_digest"));
  if (written.empty() || written == setting) return setting;
  return InvalidArgument(
      fmt::format("engram.content_digest is {}, but {} says {}: leave one of them out, or write "
                  "the file again with engramctl digest --write",
                  setting, path, written));
}

Status WriteDigestFile(const std::string& model_dir, const std::string& digest) {
  const std::string path = (std::filesystem::path(model_dir) / kDigestFile).string();
  const std::string half = path + ".part";
  std::ofstream file(half, std::ios::binary | std::ios::trunc);
  file << digest << "\n";
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(half, path, error);
  if (file && !error) return OkStatus();
  std::filesystem::remove(half, error);
  return Unavailable(fmt::format("cannot write {}", path));
}

std::vector<uint64_t> RowsToCompare(uint32_t layer_index, uint64_t total_rows) {
  std::vector<uint64_t> rows;
  const uint64_t count = total_rows <= kWholeRows ? total_rows : kSampledRows;
  Rng rng(kSampleSeed + layer_index);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t width = total_rows / count;  // the last slice has what is left, too
    rows.push_back(i * width + rng.NextBelow(i + 1 == count ? total_rows - i * width : width));
  }
  return rows;
}

Result<uint64_t> CompareLayer(LookupClient& nodes, uint32_t layer_index, const TableSource& own,
                              const std::string& folder, Nanos timeout) {
  const size_t row_bytes = own.row_format().row_bytes();
  std::vector<uint64_t> rows = RowsToCompare(layer_index, own.rows(0));
  for (const net::KnownAnswer& answer : nodes.known_answers()) {
    if (answer.layer_index == layer_index) rows.push_back(answer.row);
  }
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  std::vector<std::byte> served, ours;
  for (size_t first = 0; first < rows.size(); first += kLookupRows) {
    const auto some = std::span(rows).subspan(first, std::min(kLookupRows, rows.size() - first));
    served.resize(some.size() * row_bytes);
    ours.resize(some.size() * row_bytes);
    const LayerLookup lookup = {layer_index, some, served};
    ASSIGN_OR_RETURN(Ticket ticket, nodes.Submit({&lookup, 1}, Clock::Real().Now() + timeout));
    RETURN_IF_ERROR(ReadOwn(own, some, ours.data()));
    const Status arrived = ticket.Wait(layer_index);
    if (!arrived.ok()) return arrived.WithContext("comparing rows with the model folder's");
    if (served == ours) continue;
    for (size_t i = 0; i < some.size(); ++i) {
      const auto theirs = std::span<const std::byte>(served).subspan(i * row_bytes, row_bytes);
      const auto mine = std::span<const std::byte>(ours).subspan(i * row_bytes, row_bytes);
      if (std::ranges::equal(theirs, mine)) continue;
      const table::TableIdentity& identity = nodes.identity();
      return FailedPrecondition(fmt::format(
          "the memory nodes serve other tables than {} holds: row {} of layer {} has SHA-256 {} "
          "there and {} at memory node {} (model \"{}\", version \"{}\", content digest {}); "
          "import this folder, or name the folder and model.version that belong to these tables",
          folder, some[i], identity.layers[layer_index].layer_id, ShaOf(mine), ShaOf(theirs),
          nodes.OwnersOf(layer_index, some[i]), identity.model, identity.version,
          identity.content_digest));
    }
  }
  return rows.size();
}

Result<ContentComparison> CompareContent(LookupClient& nodes, const std::string& model_dir,
                                         const ModelTables& tables, Nanos timeout) {
  ContentComparison comparison;
  for (uint32_t i = 0; i < tables.layout.layers.size(); ++i) {
    ModelTables one;  // without the token map, which rows do not need
    one.config = tables.config;
    one.config.layer_ids = {tables.layout.layers[i].layer_id};
    one.layout = tables.layout;
    one.layout.layers = {tables.layout.layers[i]};
    const auto own = OpenTableSource(model_dir, one);
    if (!own.ok() && own.status().code() == Code::kNotFound) {
      comparison.layers_absent.push_back(tables.layout.layers[i].layer_id);
      continue;
    }
    RETURN_IF_ERROR(own.status());
    ASSIGN_OR_RETURN(const uint64_t rows, CompareLayer(nodes, i, **own, model_dir, timeout));
    comparison.rows += rows;
  }
  return comparison;
}

}  // namespace engram::client
