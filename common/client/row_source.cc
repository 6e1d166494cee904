#include "common/client/row_source.h"

#include <fmt/format.h>

namespace engram::client {

Ticket Ticket::Done(std::span<const LayerLookup> layers) {
  Ticket ticket;
  for (const LayerLookup& lookup : layers) ticket.done_layers_ |= uint64_t{1} << lookup.layer_index;
  return ticket;
}

Status Ticket::Wait(uint32_t layer_index) {
  if (pending_ != nullptr) return pending_->Wait(layer_index);
  const bool asked = layer_index < 64 && (done_layers_ >> layer_index & 1) != 0;
  return asked ? OkStatus() : NotAskedFor(layer_index);
}

Status NotAskedFor(uint32_t layer_index) {
  return InvalidArgument(
      fmt::format("this lookup did not ask for Engram layer index {}", layer_index));
}

Status CheckLookups(const table::TableLayout& layout, std::span<const LayerLookup> layers) {
  const size_t row_bytes = layout.row_format.row_bytes();
  uint64_t seen = 0;
  for (const LayerLookup& lookup : layers) {
    if (lookup.layer_index >= layout.layers.size()) {
      return InvalidArgument(fmt::format("lookup in Engram layer index {}, the table set has {}",
                                         lookup.layer_index, layout.layers.size()));
    }
    const int layer_id = layout.layers[lookup.layer_index].layer_id;
    const uint64_t bit = uint64_t{1} << lookup.layer_index;
    if ((seen & bit) != 0)
      return InvalidArgument(fmt::format("layer {} twice in a lookup", layer_id));
    seen |= bit;
    if (lookup.rows.size() < UINT32_MAX && lookup.out.size() == lookup.rows.size() * row_bytes) {
      continue;
    }
    return InvalidArgument(fmt::format("buffer of {} bytes for {} rows of {} bytes in layer {}",
                                       lookup.out.size(), lookup.rows.size(), row_bytes, layer_id));
  }
  return OkStatus();
}

std::string_view PathName(Path path) {
  switch (path) {
    case Path::kLocal:
      return "local";
    case Path::kGather:
      return "gather";
    case Path::kOneSided:
      return "one_sided";
  }
  return "?";
}

}  // namespace engram::client
