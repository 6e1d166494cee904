#include "common/io/mmap_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace engram::io {
namespace {

Status OpenError(const std::string& path, int error) {
  const Code code = error == ENOENT || error == ENOTDIR ? Code::kNotFound : Code::kInvalidArgument;
  return {code, fmt::format("cannot open {}: {}", path, std::strerror(error))};
}

}  // namespace

Result<MmapFile> MmapFile::Open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return OpenError(path, errno);
  struct stat stat {};
  if (::fstat(fd, &stat) != 0) {
    const int error = errno;
    ::close(fd);
    return OpenError(path, error);
  }
  if (!S_ISREG(stat.st_mode)) {
    ::close(fd);
    return InvalidArgument(fmt::format("cannot map {}: it is not a regular file", path));
  }
  MmapFile file;
  file.path_ = path;
  file.size_bytes_ = static_cast<size_t>(stat.st_size);
  if (file.size_bytes_ > 0) {
    void* mapped = ::mmap(nullptr, file.size_bytes_, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
      const int error = errno;
      ::close(fd);
      file.size_bytes_ = 0;
      return Status(Code::kResourceExhausted, fmt::format("cannot map {} ({} bytes): {}", path,
                                                          stat.st_size, std::strerror(error)));
    }
    file.data_ = static_cast<const std::byte*>(mapped);
  }
  ::close(fd);
  return file;
}

MmapFile::~MmapFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_bytes_);
}

MmapFile::MmapFile(MmapFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

MmapFile& MmapFile::operator=(MmapFile&& other) noexcept {
  if (this == &other) return *this;
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_bytes_);
  path_ = std::move(other.path_);
  data_ = std::exchange(other.data_, nullptr);
  size_bytes_ = std::exchange(other.size_bytes_, 0);
  return *this;
}

Result<std::span<const std::byte>> MmapFile::Slice(size_t offset, size_t size_bytes) const {
  if (offset > size_bytes_ || size_bytes > size_bytes_ - offset) {
    return OutOfRange(fmt::format("cannot read {} bytes at offset {} of {}: the file has {} bytes",
                                  size_bytes, offset, path_, size_bytes_));
  }
  return bytes().subspan(offset, size_bytes);
}

void MmapFile::AdviseSequential() const {
  if (data_ != nullptr) {
    ::madvise(const_cast<std::byte*>(data_), size_bytes_, MADV_SEQUENTIAL);
  }
}

void MmapFile::AdviseRandom() const {
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_bytes_, MADV_RANDOM);
}

}  // namespace engram::io
