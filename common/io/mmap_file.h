// A read-only memory mapping of a whole file. Move-only. Slices are bounds-checked and valid while
// it lives.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "common/base/status.h"

namespace engram::io {

class MmapFile {
 public:
  static Result<MmapFile> Open(const std::string& path);
  MmapFile() = default;
  ~MmapFile();
  MmapFile(MmapFile&& other) noexcept;
  MmapFile& operator=(MmapFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_bytes_}; }
  size_t size_bytes() const { return size_bytes_; }
  const std::string& path() const { return path_; }
  // OUT_OF_RANGE names the file, the offset and the size.
  Result<std::span<const std::byte>> Slice(size_t offset, size_t size_bytes) const;
  void AdviseSequential() const;
  void AdviseRandom() const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
};

}  // namespace engram::io
