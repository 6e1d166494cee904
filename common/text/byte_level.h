// GPT-2's spelling of bytes as printable characters: how a byte-level vocabulary writes its tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace engram::text {

// The character a byte is written as: itself when printable Latin-1, else U+0100 and up in order.
char32_t ByteLevelCharacter(uint8_t byte);

// A byte string in the vocabulary's spelling.
std::string ToByteLevel(std::string_view bytes);

// The bytes a spelling stands for; nullopt when it holds a character that stands for no byte.
std::optional<std::string> FromByteLevel(std::string_view spelling);

}  // namespace engram::text
