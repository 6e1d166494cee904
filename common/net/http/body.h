// The body of one HTTP request out of the bytes that follow its header: of a stated length, or in
// chunks (RFC 9112, 7.1). Keeps the content only. Chunk lines and trailers are skipped; each has a
// limit, and all chunk lines have one together, so that every body ends. Internal to common/net.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace engram::net {

class HttpBody {
 public:
  enum class Step { kMore, kDone, kTooLarge, kMalformed };
  inline static constexpr size_t kChunkLineBytesMax = 1024;     // a chunk's size and extensions
  inline static constexpr size_t kTrailersBytesMax = 8 * 1024;  // all of them
  inline static constexpr size_t kFramingBytesMin = 64 * 1024;  // of all chunks' lines

  static HttpBody OfLength(uint64_t bytes);
  // kTooLarge beyond `bytes_max` of content, and beyond 3 `bytes_max` + kFramingBytesMin of lines.
  static HttpBody InChunks(uint64_t bytes_max);

  // Takes off the front of `bytes` what is the body's; all of it, unless the body ends there.
  Step Take(std::string_view& bytes);
  const std::string& content() const { return content_; }
  std::string TakeContent() { return std::exchange(content_, {}); }

 private:
  enum class State {
    kSize,
    kBlank,
    kExtension,
    kSizeEnd,
    kData,
    kDataCr,
    kDataLf,
    kTrailer,
    kTrailerEnd,
    kEnd,
    kDone
  };

  Step TakeData(std::string_view& bytes);
  Step TakeByte(char byte);
  Step TakeSizeByte(char byte);
  Step OnChunkLine();

  State state_ = State::kDone;
  bool chunked_ = false;
  uint64_t left_ = 0;      // of the length, or of this chunk
  uint64_t room_ = 0;      // for content of more chunks
  uint64_t framing_ = 0;   // bytes of chunks' lines that may still come
  size_t line_bytes_ = 0;  // of a chunk's line, or of the trailers
  bool line_empty_ = true;
  bool digits_ = false;
  std::string content_;
};

}  // namespace engram::net
