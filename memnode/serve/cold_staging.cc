#include "memnode/serve/cold_staging.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace engram::memnode {
namespace {

constexpr size_t kLookRows = 256;  // looked for at a time, on the stack

// Ids of `bytes` each, unaligned, as 64-bit ones.
template <typename Id>
void Widen(const std::byte* ids, std::span<uint64_t> rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    Id id;
    std::memcpy(&id, ids + i * sizeof(id), sizeof(id));
    rows[i] = id;
  }
}

}  // namespace

std::span<const uint64_t> RowsOf(const Request& request, size_t first, std::span<uint64_t> rows) {
  const std::byte* ids = request.ids.data() + first * request.header.id_bytes;
  if (request.header.id_bytes == sizeof(uint32_t)) {
    Widen<uint32_t>(ids, rows);
  } else {
    Widen<uint64_t>(ids, rows);
  }
  return rows;
}

Result<bool> StageColdRows(Request& request, const ServedTables& tables, ColdReader& cold,
                           const std::function<void()>& on_part) {
  if (!cold.has_room()) return false;
  std::array<uint64_t, kLookRows> rows;
  std::array<const std::byte*, kLookRows> addresses;
  std::vector<ColdRow> missing;
  size_t before = request.ids_before;
  for (uint32_t part = request.layer; part < request.layers.size(); ++part) {
    const net::LookupLayer& layer = request.layers[part];
    const auto in_use = tables.Use();
    uint32_t place = part == request.layer ? request.first : 0;
    while (place < layer.row_count) {
      const size_t count = std::min<size_t>(kLookRows, layer.row_count - place);
      const auto some = RowsOf(request, before + place, std::span(rows).first(count));
      RETURN_IF_ERROR(tables.Find(layer.layer_index, some, std::span(addresses).first(count)));
      for (size_t i = 0; i < count; ++i, ++place) {
        if (addresses[i] == nullptr) missing.push_back({part, place, layer.layer_index, some[i]});
      }
    }
    before += layer.row_count;
  }
  auto batch = std::make_shared<ColdBatch>(std::move(missing), request.layers.size(),
                                           tables.stored_row_bytes(), on_part);
  if (!batch->rows().empty() && !cold.Submit(batch)) return false;
  request.cold = std::move(batch);
  return true;
}

bool PlaceColdRows(const Request& request, uint32_t first, std::span<const std::byte*> addresses) {
  for (size_t i = 0; i < addresses.size(); ++i) {
    if (addresses[i] != nullptr) continue;
    if (request.cold == nullptr) return false;
    addresses[i] = request.cold->Find(request.layer, first + static_cast<uint32_t>(i));
    if (addresses[i] == nullptr) return false;
  }
  return true;
}

}  // namespace engram::memnode
