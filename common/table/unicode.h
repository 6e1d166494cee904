// What Unicode says of characters and texts, by ICU: as Hugging Face's tokenizers go by it.
#pragma once

#include <string>
#include <string_view>

#include "common/base/status.h"

namespace engram::table {

// \s of a Unicode regular expression: White_Space.
bool IsWhiteSpace(char32_t character);

// \w of a Unicode regular expression (UTS 18): letters, marks, decimal digits, connectors.
bool IsWordCharacter(char32_t character);

// The text in normalisation form C. `utf8` is well-formed. A text of N bytes becomes one of at
// least N / kNfcShrinkMax: U+0390 has six bytes when decomposed, two when composed.
inline constexpr size_t kNfcShrinkMax = 3;
Result<std::string> ComposeNfc(std::string_view utf8);

}  // namespace engram::table
