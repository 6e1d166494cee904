// A read-only memory mapping of a whole file that others may change. Move-only. Slices are
// bounds-checked and valid while it lives.
//
// A page that the file no longer has (it was cut short, or the disk cannot read it) would end the
// process with SIGBUS. Here it reads as zeros instead, and CheckUnchanged says so from then on: ask
// it after reading, before what was read is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/base/owned_fd.h"
#include "common/base/status.h"

namespace engram::io {

struct Guard;  // of one mapping, known to the handler of SIGBUS

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
  // DATA_LOSS names the file and what became of it since Open: cut short, written to, unreadable.
  // About a microsecond; any thread.
  Status CheckUnchanged() const;
  void AdviseSequential() const;
  void AdviseRandom() const;

  static constexpr size_t kMappedFilesMax = 16'384;  // of a process at once

 private:
  void Close();

  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  OwnedFd fd_;
  int64_t modified_ns_ = 0;  // when the file was last written to, at Open
  Guard* guard_ = nullptr;   // null: nothing is mapped
};

}  // namespace engram::io
