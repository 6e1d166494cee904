#include "common/net/http/body.h"

#include <algorithm>

namespace engram::net {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\t'; }

}  // namespace

HttpBody HttpBody::OfLength(uint64_t bytes) {
  HttpBody body;
  body.left_ = bytes;
  body.state_ = bytes == 0 ? State::kDone : State::kData;
  return body;
}

HttpBody HttpBody::InChunks(uint64_t bytes_max) {
  HttpBody body;
  body.chunked_ = true;
  body.room_ = bytes_max;
  body.framing_ = 3 * bytes_max + kFramingBytesMin;  // room for a chunk a byte
  body.state_ = State::kSize;
  return body;
}

HttpBody::Step HttpBody::Take(std::string_view& bytes) {
  Step step = Step::kMore;
  while (state_ != State::kDone && step == Step::kMore && !bytes.empty()) {
    if (state_ == State::kData) {
      step = TakeData(bytes);
    } else {
      step = TakeByte(bytes.front());
      bytes.remove_prefix(1);
    }
  }
  return state_ == State::kDone ? Step::kDone : step;
}

HttpBody::Step HttpBody::TakeData(std::string_view& bytes) {
  const auto taken = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
  content_ += bytes.substr(0, taken);
  bytes.remove_prefix(taken);
  left_ -= taken;
  if (left_ == 0) state_ = chunked_ ? State::kDataCr : State::kDone;
  return Step::kMore;
}

HttpBody::Step HttpBody::TakeByte(char byte) {
  const auto expect = [&](char wanted, State next) {
    if (byte != wanted) return Step::kMalformed;
    state_ = next;
    return Step::kMore;
  };
  switch (state_) {
    case State::kSize:
    case State::kBlank:
    case State::kExtension:
      return TakeSizeByte(byte);
    case State::kSizeEnd:
      return byte == '\n' ? OnChunkLine() : Step::kMalformed;
    case State::kDataCr:
      return expect('\r', State::kDataLf);
    case State::kDataLf:
      return expect('\n', State::kSize);
    case State::kTrailer:
      if (++line_bytes_ > kTrailersBytesMax) return Step::kTooLarge;
      if (byte == '\r') {
        state_ = line_empty_ ? State::kEnd : State::kTrailerEnd;
        return Step::kMore;
      }
      line_empty_ = false;
      return IsControl(byte) ? Step::kMalformed : Step::kMore;
    case State::kTrailerEnd:
      line_empty_ = true;
      return expect('\n', State::kTrailer);
    case State::kEnd:
      return expect('\n', State::kDone);
    default:
      return Step::kMalformed;
  }
}

HttpBody::Step HttpBody::TakeSizeByte(char byte) {
  if (++line_bytes_ > kChunkLineBytesMax || framing_-- == 0) return Step::kTooLarge;
  if (byte == '\r' && state_ != State::kBlank && digits_) {
    state_ = State::kSizeEnd;
    return Step::kMore;
  }
  if (state_ == State::kExtension) return IsControl(byte) ? Step::kMalformed : Step::kMore;
  if (const int digit = HexDigit(byte); digit >= 0 && state_ == State::kSize) {
    digits_ = true;
    if (left_ >> 60 != 0) return Step::kTooLarge;
    left_ = left_ * 16 + static_cast<uint64_t>(digit);
    return Step::kMore;
  }
  // Blanks may only lead to an extension.
  if (!digits_ || (byte != ';' && byte != ' ' && byte != '\t')) return Step::kMalformed;
  state_ = byte == ';' ? State::kExtension : State::kBlank;
  return Step::kMore;
}

HttpBody::Step HttpBody::OnChunkLine() {
  digits_ = false;
  line_bytes_ = 0;
  if (left_ > room_) return Step::kTooLarge;
  room_ -= left_;
  state_ = left_ == 0 ? State::kTrailer : State::kData;
  return Step::kMore;
}

}  // namespace engram::net
