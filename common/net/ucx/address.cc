#include "common/net/ucx/address.h"

#include <fmt/format.h>

#include <cstring>
#include <span>

#include "common/base/crc32c.h"

namespace engram::net {
namespace {

struct Prefix {
  char magic[4] = {'U', 'C', 'X', '1'};
  uint32_t crc32c = 0;  // of everything after this field
  uint64_t id = 0;
};
static_assert(sizeof(Prefix) == 16);

constexpr size_t kCheckedFrom = offsetof(Prefix, id);

uint32_t CrcOf(std::string_view text) {
  return Crc32c(std::as_bytes(std::span(text.substr(kCheckedFrom))));
}

}  // namespace

std::string EncodeUcxAddress(const UcxAddress& address) {
  Prefix prefix;
  prefix.id = address.id;
  std::string text(reinterpret_cast<const char*>(&prefix), sizeof(prefix));
  text += address.worker;
  const uint32_t crc = CrcOf(text);
  std::memcpy(text.data() + offsetof(Prefix, crc32c), &crc, sizeof(crc));
  return text;
}

Result<UcxAddress> ParseUcxAddress(std::string_view text) {
  Prefix prefix;
  if (text.size() <= sizeof(prefix) ||
      std::memcmp(text.data(), prefix.magic, sizeof(prefix.magic)) != 0) {
    return InvalidArgument(fmt::format("{} bytes that are not a UCX address", text.size()));
  }
  std::memcpy(&prefix, text.data(), sizeof(prefix));
  if (CrcOf(text) != prefix.crc32c || prefix.id == 0) {
    return InvalidArgument(fmt::format("damaged UCX address of {} bytes", text.size()));
  }
  return UcxAddress{prefix.id, std::string(text.substr(sizeof(prefix)))};
}

}  // namespace engram::net
