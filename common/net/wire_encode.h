// Writing the messages of wire.h: headers as bytes, and the variable-length header of a lookup.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "common/net/wire.h"

namespace engram::net {

// The bytes of a fixed header, valid while `header` lives.
template <typename Header>
std::span<const std::byte> HeaderBytes(const Header& header) {
  return std::as_bytes(std::span(&header, 1));
}

// Fill in the CRC of a header that is otherwise complete.
void Seal(RowsHeader& header);
void Seal(LookupErrorHeader& header, std::span<const std::byte> text);

// Fills in layer_count and crc32c and writes header and layers to `out`, replacing what it held
// (capacity is kept). 1..kLookupLayersMax layers.
void EncodeLookup(LookupHeader header, std::span<const LookupLayer> layers,
                  std::span<const std::byte> ids, std::vector<std::byte>& out);

}  // namespace engram::net
