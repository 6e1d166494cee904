#include "compute/api/text_stream.h"

#include <algorithm>
#include <optional>

#include "common/text/utf8.h"

namespace engram::compute {
namespace {

// Bytes of the character a lead byte begins; 1 for what begins none.
size_t LengthFromLead(unsigned char lead) {
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 1;
}

// The character at `offset`, or nothing when what stands there is a beginning that more bytes may
// complete.
std::optional<text::Utf8Step> CharacterAt(std::string_view bytes, size_t offset) {
  const text::Utf8Step step = text::StepUtf8(bytes, offset);
  const bool reaches_end = offset + step.length == bytes.size();
  if (!step.valid && reaches_end &&
      step.length < LengthFromLead(static_cast<unsigned char>(bytes[offset]))) {
    return std::nullopt;
  }
  return step;
}

// Moves whole characters out of `bytes`; leaves a beginning that more bytes may complete.
std::string TakeCharacters(std::string& bytes) {
  std::string text;
  size_t at = 0;
  while (at < bytes.size()) {
    const std::optional<text::Utf8Step> step = CharacterAt(bytes, at);
    if (!step) break;
    if (step->valid) {
      text.append(bytes, at, step->length);
    } else {
      text::AppendUtf8(0xfffd, text);
    }
    at += step->length;
  }
  bytes.erase(0, at);
  return text;
}

}  // namespace

std::string TextStream::Certain(const std::string& text) {
  held_ += text;
  size_t found = std::string::npos;
  size_t end = 0;  // of the text, when one is found
  for (const std::string& stop : stop_) {
    const size_t at = held_.find(stop);
    if (at >= found) continue;
    found = at;
    end = at + (show_stop_ ? stop.size() : 0);
  }
  if (found != std::string::npos) {
    stopped_ = true;
    held_.resize(end);
    return std::exchange(held_, {});
  }
  // Keep the longest end that a stop string begins with.
  size_t keep = 0;
  for (const std::string& stop : stop_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > keep; --length) {
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, length)))
        keep = length;
    }
  }
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return certain;
}

std::string TextStream::Append(int32_t token) {
  if (stopped_) return {};
  const Result<std::string> bytes = tokenizer_.Decode({&token, 1});
  // A model may have more ids than its tokenizer: those have no text.
  if (bytes.ok()) bytes_ += *bytes;
  return Certain(TakeCharacters(bytes_));
}

size_t TextStream::AppendAll(std::span<const SampledToken> tokens, bool hides_last,
                             std::string& text) {
  size_t taken = 0;
  for (; taken < tokens.size() && !stopped_; ++taken) {
    const bool hidden = hides_last && taken + 1 == tokens.size();
    if (!hidden) text += Append(tokens[taken].token);
  }
  return taken;
}

std::string TextStream::Finish() {
  if (stopped_) return {};
  std::string rest = Certain(text::ReplaceInvalidUtf8(std::exchange(bytes_, {})));
  return rest + std::exchange(held_, {});
}

int64_t TextOffsets::Next(std::string_view bytes) {
  const size_t begin = begun_.size();
  begun_ += bytes;
  int64_t offset = characters_;
  size_t at = 0;
  while (at < begun_.size()) {
    const std::optional<text::Utf8Step> step = CharacterAt(begun_, at);
    if (!step) break;
    at += step->length;
    ++characters_;
    if (at <= begin) ++offset;  // what was begun before never became a character
  }
  begun_.erase(0, at);
  return offset;
}

}  // namespace engram::compute
