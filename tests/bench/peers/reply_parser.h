// Reading a server's replies where they lie in the receive buffer. A parser is handed what has
// arrived, takes whole elements from the front, and sees the rest again with more behind it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "tests/bench/harness/batch.h"

namespace engram::bench {

class ReplyParser {
 public:
  virtual ~ReplyParser() = default;
  // Bytes taken from the front of `input`; never past the end of its own reply. An error ends the
  // connection.
  virtual Result<size_t> Take(std::string_view input) = 0;
  virtual bool done() const = 0;
};

// The reply to one batch of keys: values of value_bytes each, copied to their places.
class BatchParser : public ReplyParser {
 public:
  explicit BatchParser(size_t value_bytes) : value_bytes_(value_bytes) {}
  // The ids behind `batch`, and `out`, live until done.
  virtual void Begin(const Batch& batch, std::span<std::byte> out);
  bool done() const override { return taken_ == count_ && tail_done_; }

 protected:
  // Takes the value whose `header` stands at the front of `input`, with a line end behind it.
  // 0: not all there. An error names the protocol and what stands there instead.
  Result<size_t> TakeValue(std::string_view input, std::string_view header);
  // What stands at the front of `input` is not what was expected.
  Status Unexpected(std::string_view input, std::string_view expected) const;

  const size_t value_bytes_;
  Batch batch_;
  std::byte* out_ = nullptr;
  size_t count_ = 0;
  size_t taken_ = 0;
  bool tail_done_ = true;  // whatever follows the last value
};

// `count` times the same line.
class LinesParser : public ReplyParser {
 public:
  LinesParser(std::string line, size_t count) : line_(std::move(line) + "\r\n"), left_(count) {}
  Result<size_t> Take(std::string_view input) override;
  bool done() const override { return left_ == 0; }

 private:
  const std::string line_;
  size_t left_;
};

// The first line of `input`, shortened and printable, for messages.
std::string Excerpt(std::string_view input);

}  // namespace engram::bench
