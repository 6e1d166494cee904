#include "common/text/utf8.h"

#include <algorithm>

#include "common/text/tokenizer.h"

namespace engram::text {
namespace {

struct LeadByte {
  size_t length = 0;  // 0: cannot begin a character
  uint8_t second_min = 0x80;
  uint8_t second_max = 0xbf;
};

LeadByte Classify(uint8_t lead) {
  if (lead < 0x80) return {1};
  if (lead < 0xc2) return {};
  if (lead < 0xe0) return {2};
  if (lead == 0xe0) return {3, 0xa0};        // no overlong forms
  if (lead == 0xed) return {3, 0x80, 0x9f};  // no surrogates
  if (lead < 0xf0) return {3};
  if (lead == 0xf0) return {4, 0x90};
  if (lead < 0xf4) return {4};
  if (lead == 0xf4) return {4, 0x80, 0x8f};  // nothing above U+10FFFF
  return {};
}

}  // namespace

Utf8Step StepUtf8(std::string_view text, size_t offset) {
  const LeadByte lead = Classify(static_cast<uint8_t>(text[offset]));
  if (lead.length <= 1) return {1, lead.length == 1};
  for (size_t i = 1; i < lead.length; ++i) {
    if (offset + i >= text.size()) return {i, false};
    const auto byte = static_cast<uint8_t>(text[offset + i]);
    const uint8_t min = i == 1 ? lead.second_min : uint8_t{0x80};
    const uint8_t max = i == 1 ? lead.second_max : uint8_t{0xbf};
    if (byte < min || byte > max) return {i, false};
  }
  return {lead.length, true};
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t offset = 0;
  while (offset < text.size()) {
    const Utf8Step step = StepUtf8(text, offset);
    if (!step.valid) break;
    offset += step.length;
  }
  return offset;
}

char32_t DecodeUtf8(std::string_view text, size_t offset, size_t length) {
  const auto lead = static_cast<uint8_t>(text[offset]);
  if (length == 1) return lead;
  char32_t character = lead & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    character = (character << 6) | (static_cast<uint8_t>(text[offset + i]) & 0x3fu);
  }
  return character;
}

void AppendUtf8(char32_t character, std::string& text) {
  const auto append = [&text](char32_t byte) { text += static_cast<char>(byte); };
  if (character < 0x80) {
    append(character);
  } else if (character < 0x800) {
    append(0xc0 | (character >> 6));
    append(0x80 | (character & 0x3f));
  } else if (character < 0x10000) {
    append(0xe0 | (character >> 12));
    append(0x80 | ((character >> 6) & 0x3f));
    append(0x80 | (character & 0x3f));
  } else {
    append(0xf0 | (character >> 18));
    append(0x80 | ((character >> 12) & 0x3f));
    append(0x80 | ((character >> 6) & 0x3f));
    append(0x80 | (character & 0x3f));
  }
}

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (size_t offset = 0; offset < bytes.size();) {
    const Utf8Step step = StepUtf8(bytes, offset);
    text += step.valid ? bytes.substr(offset, step.length) : std::string_view("\xef\xbf\xbd");
    offset += step.length;
  }
  return text;
}

}  // namespace engram::text
