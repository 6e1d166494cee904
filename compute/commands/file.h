// Whole files in and out, for the command-line tools.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "common/base/status.h"

namespace engram::compute {

Result<std::string> ReadWholeFile(const std::string& path);

// A file that appears under its name only when complete: written beside it, renamed by Commit,
// removed otherwise. A device, a pipe or a link, as /dev/stdout is one, is written to as it is.
class ReplacingFile {
 public:
  static Result<ReplacingFile> Create(const std::string& path);
  ReplacingFile(ReplacingFile&& other) noexcept = default;
  ReplacingFile& operator=(ReplacingFile&&) = delete;
  ~ReplacingFile();
  Status Write(const std::string& text);
  Status Commit();

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  ReplacingFile() = default;
  std::string path_;
  std::string temporary_;
  bool in_place_ = false;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace engram::compute
