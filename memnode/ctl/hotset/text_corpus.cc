#include "memnode/ctl/hotset/text_corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <span>

#include "common/io/mmap_file.h"

namespace engram::ctl {
namespace {

namespace fs = std::filesystem;

Status AddFolder(const fs::path& folder, std::vector<TextFile>* files) {
  std::error_code error;
  const size_t first = files->size();
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const bool regular = entry->is_regular_file(error) && !entry->is_symlink(error);
    if (error || !regular) continue;
    files->push_back({entry->path().string(), entry->file_size(error), /*named=*/false});
    if (files->size() > kTextFilesMax) {
      return InvalidArgument(
          fmt::format("{} holds more than {} files", folder.string(), kTextFilesMax));
    }
  }
  if (error) {
    return NotFound(fmt::format("cannot list {}: {}", folder.string(), error.message()));
  }
  std::sort(files->begin() + static_cast<ptrdiff_t>(first), files->end(),
            [](const TextFile& a, const TextFile& b) { return a.path < b.path; });
  return OkStatus();
}

bool Indents(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

Result<std::vector<TextFile>> FindTexts(const std::vector<std::string>& paths) {
  std::vector<TextFile> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (fs::is_directory(path, error)) {
      RETURN_IF_ERROR(AddFolder(path, &files));
      continue;
    }
    const uint64_t size_bytes = fs::file_size(path, error);
    if (error) return NotFound(fmt::format("cannot read text {}: {}", path, error.message()));
    files.push_back({path, size_bytes, /*named=*/true});
  }
  return files;
}

Status TextCorpus::Visit(const TextFile& file, const std::function<Status(const Piece&)>& visit) {
  if (file.size_bytes == 0) {
    ++not_text_;
    return OkStatus();
  }
  ASSIGN_OR_RETURN(const io::MmapFile mapped, io::MmapFile::Open(file.path));
  const std::span<const std::byte> bytes = mapped.bytes();
  mapped.AdviseSequential();
  if (bytes.empty() || std::memchr(bytes.data(), 0, bytes.size()) != nullptr) {
    if (file.named && !bytes.empty()) {
      return InvalidArgument(
          fmt::format("{} is not text: it holds a zero byte; name UTF-8 text", file.path));
    }
    ++not_text_;
    return OkStatus();
  }
  Sha256 hash;
  hash.Update(bytes);
  if (!seen_.insert(hash.Finish()).second) {
    ++duplicates_;
    return OkStatus();
  }
  ++documents_;
  bytes_ += bytes.size();
  std::string_view rest(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (bool first = true; !rest.empty(); first = false) {
    const size_t end = PieceEnd(rest, kTextPieceBytesMax);
    RETURN_IF_ERROR(visit({rest.substr(0, end), first}));
    rest.remove_prefix(end);
  }
  return mapped.CheckUnchanged();
}

size_t PieceEnd(std::string_view text, size_t size_max) {
  if (text.size() <= size_max) return text.size();
  size_t behind_line = 0;
  for (size_t end = size_max; end > size_max / 2; --end) {
    if (text[end - 1] != '\n') continue;
    if (!Indents(text[end])) return end;
    if (behind_line == 0) behind_line = end;
  }
  if (behind_line != 0) return behind_line;
  size_t end = size_max;
  const auto continues = [&](size_t at) { return (text[at] & 0xc0) == 0x80; };
  while (end + 3 > size_max && end > 1 && continues(end)) --end;
  return end;
}

}  // namespace engram::ctl
