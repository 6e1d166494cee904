#include "common/io/read_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "common/base/owned_fd.h"

namespace engram::io {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 18;

Status CannotRead(const std::string& path, int error) {
  return InvalidArgument(fmt::format("cannot read {}: {}", path, std::strerror(error)));
}

}  // namespace

Result<std::string> ReadFile(const std::string& path, uint64_t bytes_max, int silence_max_ms) {
  const OwnedFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    const Code code =
        errno == ENOENT || errno == ENOTDIR ? Code::kNotFound : Code::kInvalidArgument;
    return Status(code, fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  }
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return CannotRead(path, errno);
  if (S_ISDIR(info.st_mode)) return CannotRead(path, EISDIR);
  std::string text;
  for (;;) {
    pollfd readable{file.get(), POLLIN, 0};
    if (::poll(&readable, 1, silence_max_ms) == 0) {
      return InvalidArgument(
          fmt::format("cannot read {}: it is no regular file, and nothing came "
                      "from it for {} ms",
                      path, silence_max_ms));
    }
    const size_t before = text.size();
    text.resize(before + kPieceBytes);
    const ssize_t got = ::read(file.get(), text.data() + before, kPieceBytes);
    text.resize(before + static_cast<size_t>(got > 0 ? got : 0));
    if (got == 0) return text;
    if (got < 0 && errno != EINTR && errno != EAGAIN) return CannotRead(path, errno);
    if (text.size() > bytes_max) {
      return InvalidArgument(
          fmt::format("cannot read {}: it has more than {} bytes", path, bytes_max));
    }
  }
}

bool HasEntry(const std::string& path) {
  std::error_code error;
  return std::filesystem::symlink_status(path, error).type() !=
         std::filesystem::file_type::not_found;
}

}  // namespace engram::io
