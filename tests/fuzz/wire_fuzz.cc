// Fuzzes the parsers of common/net/wire.h. Input: a flag byte, the header's length (u16), header,
// body. With the flag's lowest bit the header's CRC is made right first: no fuzzer guesses a
// CRC-32C, and behind it is where counts are believed.
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/net/transport.h"
#include "common/net/wire.h"
#include "common/net/wire_encode.h"

namespace {

using namespace engram;
using namespace engram::net;
using Bytes = std::vector<std::byte>;

// As wire.h says: of the header with the field at 0, then layers and body.
void RepairCrc(Bytes& header, std::span<const std::byte> body) {
  const Result<MessageType> type = PeekType(header);
  if (!type.ok()) return;
  const auto repair = [&](size_t fixed_bytes, size_t field, bool covers_body) {
    if (header.size() < fixed_bytes) return;
    std::memset(header.data() + field, 0, sizeof(uint32_t));
    uint32_t crc = Crc32c(header);
    if (covers_body) crc = Crc32c(body, crc);
    std::memcpy(header.data() + field, &crc, sizeof(crc));
  };
  switch (*type) {
    case MessageType::kLookup:
      return repair(sizeof(LookupHeader), offsetof(LookupHeader, crc32c), true);
    case MessageType::kRows:
      return repair(sizeof(RowsHeader), offsetof(RowsHeader, crc32c), false);
    case MessageType::kLookupError:
      return repair(sizeof(LookupErrorHeader), offsetof(LookupErrorHeader, crc32c), true);
  }
}

bool SameBytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

void CheckLookup(std::span<const std::byte> header, std::span<const std::byte> body) {
  const Result<LookupView> view = ParseLookup(header, body);
  if (!view.ok()) return;
  uint64_t ids = 0;
  for (size_t i = 0; i < view->layers().size(); ++i) {
    const LookupLayer& layer = view->layers()[i];
    CHECK_GT(layer.row_count, 0u);
    CHECK(i == 0 || layer.layer_index > view->layers()[i - 1].layer_index);
    ids += layer.row_count;
  }
  CHECK_LE(ids, kLookupRowsMax);
  CHECK_EQ(ids * view->header.id_bytes, view->ids.size());
  CHECK(view->ids.data() == body.data() && view->ids.size() == body.size());
  CHECK_LT(view->header.priority, kPriorityCount);
  Bytes again;
  EncodeLookup(view->header, view->layers(), view->ids, again);
  CHECK(SameBytes(again, header)) << "a lookup is written differently than it was read";
}

void CheckRows(std::span<const std::byte> header, std::span<const std::byte> body) {
  const Result<RowsHeader> rows = ParseRows(header, body);
  if (!rows.ok()) return;
  CHECK(rows->row_count >= 1 && rows->row_count <= kChunkRowsMax);
  CHECK_EQ(uint64_t{rows->row_count} * rows->stored_row_bytes, body.size());
  RowsHeader again = *rows;
  again.crc32c = 0;
  Seal(again);
  CHECK(SameBytes(HeaderBytes(again), header)) << "rows are written differently";
}

void CheckError(std::span<const std::byte> header, std::span<const std::byte> body) {
  const Result<LookupErrorHeader> error = ParseLookupError(header, body);
  if (!error.ok()) return;
  CHECK_NE(error->code, 0);
  LookupErrorHeader again = *error;
  again.crc32c = 0;
  Seal(again, body);
  CHECK(SameBytes(HeaderBytes(again), header)) << "an error is written differently";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kPrefix = 3;
  if (size < kPrefix) return 0;
  uint16_t header_bytes = 0;
  std::memcpy(&header_bytes, data + 1, sizeof(header_bytes));
  const auto* const bytes = reinterpret_cast<const std::byte*>(data) + kPrefix;
  const size_t left = size - kPrefix;
  // Allocations of their own, so that a read past either end is seen.
  Bytes header(bytes, bytes + std::min<size_t>(header_bytes, left));
  const Bytes body(bytes + header.size(), bytes + left);
  if ((data[0] & 1) != 0) RepairCrc(header, body);
  const Result<MessageType> type = PeekType(header);
  CheckLookup(header, body);
  CheckRows(header, body);
  CheckError(header, body);
  if (!type.ok()) {
    CHECK(!ParseLookup(header, body).ok() && !ParseRows(header, body).ok() &&
          !ParseLookupError(header, body).ok());
  }
  return 0;
}
