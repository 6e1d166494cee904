#include "common/table/vocab_map.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <unordered_map>

namespace engram::table {
namespace {

static_assert(std::endian::native == std::endian::little, "the map file is little-endian");

constexpr uint64_t kRawVocabMax = uint64_t{1} << 24;                // 64 MiB of map
constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";  // U+FFFD

// The number of compressed ids, if they are numbered by first occurrence.
Result<uint64_t> CheckDense(const std::vector<int32_t>& map, const std::string& path) {
  int32_t next = 0;
  for (size_t raw_id = 0; raw_id < map.size(); ++raw_id) {
    if (map[raw_id] < 0 || map[raw_id] > next) {
      return InvalidArgument(
          fmt::format("token map {}: raw id {} maps to {}, but compressed ids are numbered by "
                      "first occurrence and the next one is {}",
                      path, raw_id, map[raw_id], next));
    }
    if (map[raw_id] == next) ++next;
  }
  return static_cast<uint64_t>(next);
}

Result<std::vector<int32_t>> ReadEntries(const std::string& path, uint64_t raw_vocab_size) {
  std::error_code error;
  const uint64_t size_bytes = std::filesystem::file_size(path, error);
  if (error) return NotFound(fmt::format("token map {}: {}", path, error.message()));
  if (size_bytes == 0 || size_bytes % sizeof(int32_t) != 0 ||
      size_bytes / sizeof(int32_t) > kRawVocabMax) {
    return InvalidArgument(
        fmt::format("token map {} has {} bytes, expected 4 per raw id for 1 to {} ids", path,
                    size_bytes, kRawVocabMax));
  }
  std::vector<int32_t> map(size_bytes / sizeof(int32_t));
  if (raw_vocab_size != 0 && map.size() != raw_vocab_size) {
    return InvalidArgument(fmt::format("token map {} has {} entries, but the vocabulary has {} ids",
                                       path, map.size(), raw_vocab_size));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(map.data()), static_cast<std::streamsize>(size_bytes))) {
    return NotFound(fmt::format("token map {}: cannot read {} bytes", path, size_bytes));
  }
  return map;
}

// What two tokens must share to share a compressed id.
Result<std::string> KeyOf(const VocabMap::TokenText& token) {
  if (token.decoded.find(kReplacementCharacter) != std::string::npos) return token.raw_token;
  ASSIGN_OR_RETURN(std::string normalized, NormalizeTokenText(token.decoded));
  return normalized.empty() ? token.decoded : normalized;
}

}  // namespace

Result<VocabMap> VocabMap::Load(const std::string& path, uint64_t raw_vocab_size,
                                uint64_t compressed_vocab_size) {
  VocabMap loaded;
  ASSIGN_OR_RETURN(loaded.map_, ReadEntries(path, raw_vocab_size));
  ASSIGN_OR_RETURN(loaded.compressed_size_, CheckDense(loaded.map_, path));
  if (compressed_vocab_size != 0 && loaded.compressed_size_ != compressed_vocab_size) {
    return InvalidArgument(
        fmt::format("token map {} has {} compressed ids, but the model has {}: every address "
                    "depends on it",
                    path, loaded.compressed_size_, compressed_vocab_size));
  }
  return loaded;
}

Result<VocabMap> VocabMap::Build(std::span<const TokenText> tokens) {
  if (tokens.empty() || tokens.size() > kRawVocabMax) {
    return InvalidArgument(
        fmt::format("a vocabulary of {} tokens, expected 1 to {}", tokens.size(), kRawVocabMax));
  }
  VocabMap built;
  built.map_.reserve(tokens.size());
  std::unordered_map<std::string, int32_t> id_by_key;
  for (size_t raw_id = 0; raw_id < tokens.size(); ++raw_id) {
    Result<std::string> key = KeyOf(tokens[raw_id]);
    if (!key.ok()) return key.status().WithContext(fmt::format("raw id {}", raw_id));
    const auto next = static_cast<int32_t>(id_by_key.size());
    built.map_.push_back(id_by_key.try_emplace(*std::move(key), next).first->second);
  }
  built.compressed_size_ = id_by_key.size();
  return built;
}

Status VocabMap::Save(const std::string& path) const {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(map_.data()),
             static_cast<std::streamsize>(map_.size() * sizeof(int32_t)));
  file.close();
  if (!file) return Unavailable(fmt::format("cannot write token map {}", path));
  return OkStatus();
}

Result<int64_t> VocabMap::Compress(int64_t raw_id) const {
  if (raw_id < 0 || static_cast<uint64_t>(raw_id) >= map_.size()) {
    return OutOfRange(
        fmt::format("token id {} is outside the vocabulary of {} ids", raw_id, map_.size()));
  }
  return map_[static_cast<size_t>(raw_id)];
}

}  // namespace engram::table
