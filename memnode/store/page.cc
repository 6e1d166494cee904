#include "memnode/store/page.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "common/base/crc32c.h"

namespace engram::memnode {
namespace {

static_assert(std::endian::native == std::endian::little, "the trailer is little-endian");

struct Trailer {
  uint32_t crc32c = 0;
  uint32_t row_count = 0;
};
static_assert(sizeof(Trailer) == kPageTrailerBytes);

uint32_t CrcOf(std::span<const std::byte> rows, uint32_t row_count) {
  return Crc32c(std::as_bytes(std::span(&row_count, 1)), Crc32c(rows));
}

}  // namespace

void EncodePage(std::span<const std::byte> rows, uint32_t row_bytes, std::string* page) {
  CHECK_EQ(rows.size() % row_bytes, 0u);
  Trailer trailer;
  trailer.row_count = static_cast<uint32_t>(rows.size() / row_bytes);
  trailer.crc32c = CrcOf(rows, trailer.row_count);
  page->resize(rows.size() + sizeof(trailer));
  std::memcpy(page->data(), rows.data(), rows.size());
  std::memcpy(page->data() + rows.size(), &trailer, sizeof(trailer));
}

Result<std::span<const std::byte>> DecodePage(std::span<const std::byte> page, uint32_t row_bytes,
                                              uint64_t expected_rows) {
  const uint64_t expected_bytes = expected_rows * row_bytes + kPageTrailerBytes;
  if (page.size() != expected_bytes) {
    return DataLoss(fmt::format("it has {} bytes, expected {}", page.size(), expected_bytes));
  }
  const std::span<const std::byte> rows = page.first(page.size() - kPageTrailerBytes);
  Trailer trailer;
  std::memcpy(&trailer, page.data() + rows.size(), sizeof(trailer));
  const uint32_t crc = CrcOf(rows, trailer.row_count);
  if (crc != trailer.crc32c || trailer.row_count != expected_rows) {
    return DataLoss(
        fmt::format("its CRC-32C is {:08x} over {} rows, its trailer says {:08x} over "
                    "{} rows",
                    crc, expected_rows, trailer.crc32c, trailer.row_count));
  }
  return rows;
}

}  // namespace engram::memnode
