// RocksDB's log format: blocks of 32 KiB; entries that do not cross them, each with a header of
// masked CRC-32C (over type and payload), length (2 bytes) and type (1 byte), little-endian.
#include "memnode/store/rocks_log_check.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

#include "common/base/crc32c.h"

namespace engram::memnode::rocks {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLogBlockBytes = 32 << 10;
constexpr size_t kHeaderBytes = 7;

uint32_t Unmasked(uint32_t masked) {
  const uint32_t rotated = masked - 0xa282ead8u;
  return (rotated >> 17) | (rotated << 15);
}

uint32_t LittleEndian(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = (value << 8) | static_cast<uint8_t>(bytes[i]);
  return value;
}

uint32_t CrcOf(std::string_view bytes) { return Crc32c(std::as_bytes(std::span(bytes))); }

// Whether an entry that reaches past the file's end is one whose length was damaged: then a shorter
// one fits its CRC.
bool SomePrefixFits(std::string_view typed, uint32_t crc) {
  uint32_t value = 0;
  for (const char& byte : typed) {
    value = Crc32c(std::as_bytes(std::span(&byte, 1)), value);
    if (value == crc) return true;
  }
  return false;
}

bool Sound(std::string_view log) {
  size_t at = 0;
  while (at < log.size()) {
    const size_t block_left = kLogBlockBytes - at % kLogBlockBytes;
    if (block_left < kHeaderBytes) {
      at += block_left;
      continue;
    }
    const std::string_view entry = log.substr(at, block_left);
    if (entry.size() < kHeaderBytes) return true;  // cut short
    const uint32_t crc = Unmasked(LittleEndian(entry.substr(0, 4)));
    const size_t length = LittleEndian(entry.substr(4, 2));
    if (kHeaderBytes + length > block_left) return false;
    const std::string_view typed = entry.substr(6, 1 + length);
    if (typed.size() < 1 + length) return !SomePrefixFits(typed, crc);
    if (CrcOf(typed) != crc) return false;
    at += kHeaderBytes + length;
  }
  return true;
}

Status CheckFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string log((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.bad() && Sound(log)) return OkStatus();
  return DataLoss(
      fmt::format("opening the store in store.path {}: {} is damaged; remove the folder and import "
                  "again",
                  path.parent_path().string(), path.filename().string()));
}

}  // namespace

Status CheckLogs(const std::string& path) {
  std::error_code error;
  std::string current;
  std::getline(std::ifstream(path + "/CURRENT"), current);
  bool has_rows = false, has_list = false;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    const std::string name = entry.path().filename();
    has_rows = has_rows || name.ends_with(".sst");
    has_list = has_list || (name == current && name.starts_with("MANIFEST-"));
    if (name == current || name.ends_with(".log")) RETURN_IF_ERROR(CheckFile(entry.path()));
  }
  // RocksDB would begin a new store, and remove the files of this one.
  if (has_rows && !has_list) {
    return DataLoss(
        fmt::format("opening the store in store.path {}: its file CURRENT is missing or damaged; "
                    "remove the folder and import again",
                    path));
  }
  return OkStatus();
}

}  // namespace engram::memnode::rocks
