#include "common/text/byte_level.h"

#include <array>

#include "common/text/utf8.h"

namespace engram::text {
namespace {

constexpr size_t kAlphabetEnd = 0x144;  // 256 bytes, 68 of them moved to U+0100..U+0143

struct Alphabet {
  std::array<char32_t, 256> characters{};
  std::array<int16_t, kAlphabetEnd> bytes{};  // -1: stands for no byte
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.bytes) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    const char32_t character = printable ? static_cast<char32_t>(byte) : next++;
    alphabet.characters[static_cast<size_t>(byte)] = character;
    alphabet.bytes[character] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

char32_t ByteLevelCharacter(uint8_t byte) { return kAlphabet.characters[byte]; }

std::string ToByteLevel(std::string_view bytes) {
  std::string spelling;
  for (const char byte : bytes) {
    AppendUtf8(ByteLevelCharacter(static_cast<uint8_t>(byte)), spelling);
  }
  return spelling;
}

std::optional<std::string> FromByteLevel(std::string_view spelling) {
  std::string bytes;
  for (size_t offset = 0; offset < spelling.size();) {
    const Utf8Step step = StepUtf8(spelling, offset);
    if (!step.valid) return std::nullopt;
    const char32_t character = DecodeUtf8(spelling, offset, step.length);
    if (character >= kAlphabetEnd || kAlphabet.bytes[character] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.bytes[character]);
    offset += step.length;
  }
  return bytes;
}

}  // namespace engram::text
