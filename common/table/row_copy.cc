#include "common/table/row_copy.h"

#include <algorithm>

namespace engram::table {

void CopyRows(std::span<const std::byte* const> rows, size_t bytes, std::byte* out) {
  WithRowBytes(bytes, [&](auto row_bytes) {
    for (size_t first = 0; first < rows.size(); first += kRowsTogether) {
      const auto block = rows.subspan(first, std::min(kRowsTogether, rows.size() - first));
      PrefetchRows(block, row_bytes);
      for (const std::byte* const row : block) {
        CopyRow(out, row, row_bytes);
        out += row_bytes;
      }
    }
  });
}

}  // namespace engram::table
