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

Status CheckBodySize(std::span<const std::byte> body, uint64_t expected_bytes, const char* what) {
  if (body.size() != expected_bytes || expected_bytes > kBodyBytesMax) {
    return InvalidArgument(
        fmt::format("{} body of {} bytes where the header promises {} (limit {})", what,
                    body.size(), expected_bytes, kBodyBytesMax));
  }
  return OkStatus();
}

// With the field at 0, then `rest` in order.
template <typename Header>
uint32_t CrcOf(Header header, std::span<const std::byte> layers, std::span<const std::byte> body) {
  header.crc32c = 0;
  return Crc32c(body, Crc32c(layers, Crc32c(HeaderBytes(header))));
}

template <typename Header>
Status CheckCrc(const Header& header, std::span<const std::byte> layers,
                std::span<const std::byte> body, const char* what) {
  const uint32_t found = CrcOf(header, layers, body);
  if (found == header.crc32c) return OkStatus();
  return DataLoss(fmt::format("{} has CRC-32C {:08x}, its header says {:08x}: damaged on the way",
                              what, found, header.crc32c));
}

Status CheckLookupHeader(const LookupHeader& header, size_t header_bytes) {
  if (header.id_bytes != 4 && header.id_bytes != 8) {
    return InvalidArgument(
        fmt::format("lookup with id_bytes {}, only 4 and 8 exist", header.id_bytes));
  }
  if (header.priority >= kPriorityCount) {
    return InvalidArgument(
        fmt::format("lookup with priority {}, there are {}", header.priority, kPriorityCount));
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
  const std::span<const std::byte> layers = header.subspan(sizeof(LookupHeader));
  std::memcpy(view.layer_array.data(), layers.data(), layers.size());
  ASSIGN_OR_RETURN(const uint64_t ids, CountIds(view.layers()));
  RETURN_IF_ERROR(CheckBodySize(body, ids * view.header.id_bytes, "lookup"));
  RETURN_IF_ERROR(CheckCrc(view.header, layers, body, "lookup"));
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
  if (rows.row_count == 0 || rows.row_count > kChunkRowsMax || rows.stored_row_bytes == 0) {
    return InvalidArgument(
        fmt::format("chunk of {} rows of {} bytes, must be 1..{} rows of at "
                    "least 1 byte",
                    rows.row_count, rows.stored_row_bytes, kChunkRowsMax));
  }
  const uint64_t body_bytes = static_cast<uint64_t>(rows.row_count) * rows.stored_row_bytes;
  RETURN_IF_ERROR(CheckBodySize(body, body_bytes, "rows"));
  RETURN_IF_ERROR(CheckCrc(rows, {}, {}, "rows header"));
  return rows;
}

Result<LookupErrorHeader> ParseLookupError(std::span<const std::byte> header,
                                           std::span<const std::byte> body) {
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
  RETURN_IF_ERROR(CheckCrc(error, {}, body, "lookup error"));
  return error;
}

void Seal(RowsHeader& header) { header.crc32c = CrcOf(header, {}, {}); }

void Seal(LookupErrorHeader& header, std::span<const std::byte> text) {
  header.crc32c = CrcOf(header, {}, text);
}

void EncodeLookup(LookupHeader header, std::span<const LookupLayer> layers,
                  std::span<const std::byte> ids, std::vector<std::byte>& out) {
  CHECK(!layers.empty() && layers.size() <= kLookupLayersMax) << layers.size();
  header.layer_count = static_cast<uint16_t>(layers.size());
  header.crc32c = CrcOf(header, std::as_bytes(layers), ids);
  out.resize(sizeof(header) + layers.size_bytes());
  std::memcpy(out.data(), &header, sizeof(header));
  std::memcpy(out.data() + sizeof(header), layers.data(), layers.size_bytes());
}

}  // namespace engram::net
