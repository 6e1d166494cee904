#include "common/net/wire.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "common/base/crc32c.h"
#include "common/net/transport.h"
#include "common/net/wire_encode.h"

namespace engram::net {
namespace {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian");

// Magic, version and type: how every message starts.
struct Prefix {
  uint32_t magic = 0;
  uint16_t version = 0;
  uint16_t type = 0;
};

// Copies a fixed header out of `bytes`, checked to hold one and to be of type `type`.
template <typename Header>
Result<Header> ReadHeader(std::span<const std::byte> bytes, MessageType type, const char* what) {
  ASSIGN_OR_RETURN(const MessageType found, PeekType(bytes));
  if (found != type) {
    return InvalidArgument(fmt::format("message type {} where {} ({}) is expected",
                                       static_cast<int>(found), static_cast<int>(type), what));
  }
  if (bytes.size() < sizeof(Header)) {
    return InvalidArgument(
        fmt::format("{} header of {} bytes, needs {}", what, bytes.size(), sizeof(Header)));
  }
  Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  return header;
}

Status CheckBody(std::span<const std::byte> body, uint64_t expected_bytes, uint32_t crc,
                 const char* what) {
  if (body.size() != expected_bytes || expected_bytes > kBodyBytesMax) {
    return InvalidArgument(
        fmt::format("{} body of {} bytes where the header promises {} (limit {})", what,
                    body.size(), expected_bytes, kBodyBytesMax));
  }
  const uint32_t found = Crc32c(body);
  if (found == crc) return OkStatus();
  return DataLoss(
      fmt::format("{} body of {} bytes has CRC-32C {:08x}, its header says {:08x}: "
                  "damaged on the way",
                  what, body.size(), found, crc));
}

Status CheckLookupHeader(const LookupHeader& header, size_t header_bytes) {
  if (header.id_bytes != 4 && header.id_bytes != 8) {
    return InvalidArgument(
        fmt::format("lookup with id_bytes {}, only 4 and 8 exist", header.id_bytes));
  }
  if (header.priority > static_cast<uint8_t>(Priority::kHint)) {
    return InvalidArgument(fmt::format("lookup with priority {}, the last is {}", header.priority,
                                       static_cast<int>(Priority::kHint)));
  }
  if (header.layer_count == 0 || header.layer_count > kLookupLayersMax) {
    return InvalidArgument(
        fmt::format("lookup of {} layers, must be 1..{}", header.layer_count, kLookupLayersMax));
  }
  const size_t expected = sizeof(LookupHeader) + header.layer_count * sizeof(LookupLayer);
  if (header_bytes != expected) {
    return InvalidArgument(fmt::format("lookup header of {} bytes, {} layers take {}", header_bytes,
                                       header.layer_count, expected));
  }
  return OkStatus();
}

// Layers ascend, none is empty; returns the number of ids.
Result<uint64_t> CountIds(std::span<const LookupLayer> layers) {
  uint64_t ids = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (i > 0 && layers[i].layer_index <= layers[i - 1].layer_index) {
      return InvalidArgument(fmt::format("lookup layers out of order: {} after {}",
                                         layers[i].layer_index, layers[i - 1].layer_index));
    }
    if (layers[i].row_count == 0) {
      return InvalidArgument(fmt::format("lookup of no rows in layer {}", layers[i].layer_index));
    }
    ids += layers[i].row_count;
  }
  if (ids > kLookupRowsMax) {
    return InvalidArgument(fmt::format("lookup of {} rows, the limit is {}", ids, kLookupRowsMax));
  }
  return ids;
}

}  // namespace

Result<MessageType> PeekType(std::span<const std::byte> header) {
  Prefix prefix;
  if (header.size() < sizeof(prefix)) {
    return InvalidArgument(fmt::format("message header of {} bytes is too short", header.size()));
  }
  std::memcpy(&prefix, header.data(), sizeof(prefix));
  if (prefix.magic != kWireMagic || prefix.version != kWireVersion) {
    return InvalidArgument(fmt::format("not a message of wire version {}: magic {:08x}, version {}",
                                       kWireVersion, prefix.magic, prefix.version));
  }
  if (prefix.type < static_cast<uint16_t>(MessageType::kLookup) ||
      prefix.type > static_cast<uint16_t>(MessageType::kLookupError)) {
    return InvalidArgument(fmt::format("unknown message type {}", prefix.type));
  }
  return static_cast<MessageType>(prefix.type);
}

Result<LookupView> ParseLookup(std::span<const std::byte> header, std::span<const std::byte> body) {
  LookupView view;
  ASSIGN_OR_RETURN(view.header, ReadHeader<LookupHeader>(header, MessageType::kLookup, "lookup"));
  RETURN_IF_ERROR(CheckLookupHeader(view.header, header.size()));
  view.layers.resize(view.header.layer_count);
  std::memcpy(view.layers.data(), header.data() + sizeof(LookupHeader),
              view.layers.size() * sizeof(LookupLayer));
  ASSIGN_OR_RETURN(const uint64_t ids, CountIds(view.layers));
  RETURN_IF_ERROR(CheckBody(body, ids * view.header.id_bytes, view.header.body_crc32c, "lookup"));
  view.ids = body;
  return view;
}

Result<RowsHeader> ParseRows(std::span<const std::byte> header, std::span<const std::byte> body) {
  ASSIGN_OR_RETURN(const RowsHeader rows,
                   ReadHeader<RowsHeader>(header, MessageType::kRows, "rows"));
  if (header.size() != sizeof(RowsHeader)) {
    return InvalidArgument(
        fmt::format("rows header of {} bytes, must be {}", header.size(), sizeof(RowsHeader)));
  }
  if (rows.row_count == 0 || rows.row_count > kChunkRowsMax || rows.row_bytes == 0) {
    return InvalidArgument(
        fmt::format("chunk of {} rows of {} bytes, must be 1..{} rows of at "
                    "least 1 byte",
                    rows.row_count, rows.row_bytes, kChunkRowsMax));
  }
  const uint64_t body_bytes = static_cast<uint64_t>(rows.row_count) * rows.row_bytes;
  RETURN_IF_ERROR(CheckBody(body, body_bytes, rows.body_crc32c, "rows"));
  return rows;
}

Result<LookupErrorHeader> ParseLookupError(std::span<const std::byte> header) {
  ASSIGN_OR_RETURN(
      const LookupErrorHeader error,
      ReadHeader<LookupErrorHeader>(header, MessageType::kLookupError, "lookup error"));
  if (header.size() != sizeof(LookupErrorHeader)) {
    return InvalidArgument(fmt::format("lookup error header of {} bytes, must be {}", header.size(),
                                       sizeof(LookupErrorHeader)));
  }
  if (error.code <= static_cast<int>(Code::kOk) || error.code > static_cast<int>(Code::kInternal)) {
    return InvalidArgument(fmt::format("lookup error with unknown code {}", error.code));
  }
  return error;
}

void EncodeLookup(LookupHeader header, std::span<const LookupLayer> layers,
                  std::span<const std::byte> ids, std::vector<std::byte>& out) {
  CHECK(!layers.empty() && layers.size() <= kLookupLayersMax) << layers.size();
  header.layer_count = static_cast<uint16_t>(layers.size());
  header.body_crc32c = Crc32c(ids);
  out.resize(sizeof(header) + layers.size_bytes());
  std::memcpy(out.data(), &header, sizeof(header));
  std::memcpy(out.data() + sizeof(header), layers.data(), layers.size_bytes());
}

}  // namespace engram::net
