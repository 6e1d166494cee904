// The texts that a corpus is made of: files, and whatever text lies in folders, each once, handed
// out in pieces of bounded size.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/sha256.h"
#include "common/base/status.h"

namespace engram::ctl {

inline constexpr size_t kTextPieceBytesMax = size_t{1} << 20;
inline constexpr size_t kTextFilesMax = 1'000'000;

struct TextFile {
  std::string path;
  uint64_t size_bytes = 0;
  bool named = false;  // by the user, not found in a folder
};

// Folders give every file below them, by name; links in them are not followed. NOT_FOUND and
// INVALID_ARGUMENT name the path.
Result<std::vector<TextFile>> FindTexts(const std::vector<std::string>& paths);

class TextCorpus {
 public:
  struct Piece {
    std::string_view text;
    bool first = false;  // of its file
  };
  // Calls `visit` for each piece of the file in order. Leaves out a file whose bytes were there
  // before, an empty one, and one found in a folder that holds a zero byte: no text.
  // INVALID_ARGUMENT for a named file with a zero byte; errors of `visit`.
  Status Visit(const TextFile& file, const std::function<Status(const Piece&)>& visit);

  uint64_t documents() const { return documents_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t duplicates() const { return duplicates_; }
  uint64_t not_text() const { return not_text_; }

 private:
  std::set<Sha256Digest> seen_;
  uint64_t documents_ = 0;
  uint64_t bytes_ = 0;
  uint64_t duplicates_ = 0;
  uint64_t not_text_ = 0;
};

// Where to cut `text` into a first piece of at most `size_max` bytes and at least half of that:
// behind the last line that is followed by one that is not indented, else behind the last line,
// else between two characters.
size_t PieceEnd(std::string_view text, size_t size_max);

}  // namespace engram::ctl
