#include "compute/commands/file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace engram::compute {
namespace {

Status Failure(std::string_view doing, const std::string& path) {
  const int error = errno;
  const std::string message = fmt::format("{} {}: {}", doing, path, std::strerror(error));
  return error == ENOENT ? NotFound(message) : InvalidArgument(message);
}

// A device, a pipe or a link (/dev/stdout) is written in place: a file renamed over it would
// replace it.
bool IsWrittenInPlace(const std::string& path) {
  using std::filesystem::file_type;
  std::error_code error;
  const file_type type = std::filesystem::symlink_status(path, error).type();
  return type == file_type::symlink || type == file_type::character || type == file_type::block ||
         type == file_type::fifo;
}

}  // namespace

Result<std::string> ReadWholeFile(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (!file) return Failure("cannot open", path);
  std::string content;
  char buffer[65536];
  size_t count = 0;
  while ((count = std::fread(buffer, 1, sizeof(buffer), file.get())) > 0)
    content.append(buffer, count);
  if (std::ferror(file.get()) != 0) return Failure("cannot read", path);
  return content;
}

Result<ReplacingFile> ReplacingFile::Create(const std::string& path) {
  ReplacingFile out;
  out.path_ = path;
  out.in_place_ = IsWrittenInPlace(path);
  out.temporary_ = out.in_place_ ? path : fmt::format("{}.{}.part", path, getpid());
  out.file_.reset(std::fopen(out.temporary_.c_str(), "wb"));
  if (!out.file_) return Failure("cannot create", out.temporary_);
  return out;
}

ReplacingFile::~ReplacingFile() {
  if (file_ && !in_place_) std::remove(temporary_.c_str());
}

Status ReplacingFile::Write(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size()) return OkStatus();
  return Failure("cannot write", temporary_);
}

Status ReplacingFile::Commit() {
  if (std::fflush(file_.get()) != 0) return Failure("cannot write", temporary_);
  if (!in_place_ && std::rename(temporary_.c_str(), path_.c_str()) != 0)
    return Failure("cannot rename to", path_);
  file_.reset();
  return OkStatus();
}

}  // namespace engram::compute
