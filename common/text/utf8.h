// UTF-8, one step at a time, by the Unicode standard's table 3-7.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace engram::text {

struct Utf8Step {
  size_t length = 0;  // bytes of the character, or of the maximal ill-formed part
  bool valid = false;
};

// What begins at `offset` < text.size().
Utf8Step StepUtf8(std::string_view text, size_t offset);

// Bytes of the longest well-formed prefix.
size_t ValidUtf8Prefix(std::string_view text);

// The character at `offset`, whose step is valid and `length` long.
char32_t DecodeUtf8(std::string_view text, size_t offset, size_t length);

void AppendUtf8(char32_t character, std::string& text);

}  // namespace engram::text
