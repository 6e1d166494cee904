// The row service's messages: fixed little-endian headers, checked field by field before anything
// is believed.
//
//   client -> node  kLookup       header: LookupHeader, layer_count x LookupLayer
//                                 body: ids, layer after layer
//   node -> client  kRows         header: RowsHeader         body: row_count stored rows
//   node -> client  kLookupError  header: LookupErrorHeader  body: UTF-8 message
//
// A node answers each lookup with kRows chunks that together hold every row of every layer once,
// earliest layer first, or with one kLookupError, which ends it, also after some chunks. A layer
// whose own deadline has passed may be missing.
//
// Integrity: every header carries its own CRC-32C, which also covers the body of a lookup and of an
// error. The body of kRows is covered row by row (common/table/row_check.h): each stored row ends
// with a check that the receiver compares when it copies the row out.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/status.h"
#include "common/net/transport.h"

namespace engram::net {

inline constexpr uint32_t kWireMagic = 0x4d474e45;  // "ENGM"
inline constexpr uint16_t kWireVersion = 2;
// Ids in one message (256 KiB of u32); the client splits.
inline constexpr uint32_t kLookupRowsMax = 1u << 16;
inline constexpr uint32_t kLookupLayersMax = 64;
// Rows in one reply. 480 overlaps packing and sending; below 120 throughput is lost.
inline constexpr uint32_t kChunkRowsMax = 480;

enum class MessageType : uint16_t { kLookup = 1, kRows = 2, kLookupError = 3 };
inline constexpr uint8_t kPriorityCount = 3;  // client::Priority: decode, prefill, hint

struct LookupHeader {
  uint32_t magic = kWireMagic;
  uint16_t version = kWireVersion;
  uint16_t type = static_cast<uint16_t>(MessageType::kLookup);
  uint64_t session = 0;     // handed out by the control handshake; secret, unguessable
  uint64_t request_id = 0;  // the client's; unique in its session
  uint32_t epoch = 0;       // of the cluster map the client split the request by
  uint32_t budget_us = 0;   // time left until the deadline when it was sent
  uint8_t priority = 0;
  uint8_t id_bytes = 4;  // 4: u32 ids; 8: u64 ids
  uint16_t layer_count = 0;
  uint32_t crc32c = 0;  // of header (this field 0), layers and body
};
static_assert(sizeof(LookupHeader) == 40);

struct LookupLayer {
  uint32_t layer_index = 0;
  uint32_t row_count = 0;
  uint32_t budget_us = 0;  // time left until this layer's own deadline; 0: it has none
};
static_assert(sizeof(LookupLayer) == 12);
static_assert(sizeof(LookupHeader) + kLookupLayersMax * sizeof(LookupLayer) <= kHeaderBytesMax);

struct RowsHeader {
  uint32_t magic = kWireMagic;
  uint16_t version = kWireVersion;
  uint16_t type = static_cast<uint16_t>(MessageType::kRows);
  uint64_t request_id = 0;
  uint32_t layer_index = 0;
  uint32_t first = 0;  // position of the first row in the request's list of this layer
  uint32_t row_count = 0;
  uint32_t stored_row_bytes = 0;  // the row and its check
  uint32_t crc32c = 0;            // of the header (this field 0)
  uint32_t reserved = 0;
};
static_assert(sizeof(RowsHeader) == 40);

struct LookupErrorHeader {
  uint32_t magic = kWireMagic;
  uint16_t version = kWireVersion;
  uint16_t type = static_cast<uint16_t>(MessageType::kLookupError);
  uint64_t request_id = 0;
  int32_t code = 0;     // engram::Code
  uint32_t crc32c = 0;  // of the header (this field 0) and the text
};
static_assert(sizeof(LookupErrorHeader) == 24);

// A checked lookup; `ids` points into the message.
struct LookupView {
  LookupHeader header;
  std::array<LookupLayer, kLookupLayersMax> layer_array;
  std::span<const std::byte> ids;  // header.id_bytes each, layer after layer; may be unaligned

  std::span<const LookupLayer> layers() const {
    return std::span(layer_array).first(header.layer_count);
  }
};

// INVALID_ARGUMENT (malformed, too long, counts that do not add up) or DATA_LOSS (CRC). Never reads
// outside the spans.
Result<LookupView> ParseLookup(std::span<const std::byte> header, std::span<const std::byte> body);
// The checks of the rows themselves are the caller's to compare.
Result<RowsHeader> ParseRows(std::span<const std::byte> header, std::span<const std::byte> body);
Result<LookupErrorHeader> ParseLookupError(std::span<const std::byte> header,
                                           std::span<const std::byte> body);
// The type field of any message, or INVALID_ARGUMENT when magic or version do not match.
Result<MessageType> PeekType(std::span<const std::byte> header);

}  // namespace engram::net
