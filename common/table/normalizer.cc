// NormalizeTokenText by ICU.
#include <fmt/format.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/ustring.h>

#include <string>

#include "common/table/vocab_map.h"

namespace engram::table {
namespace {

constexpr size_t kTextBytesMax = size_t{1} << 20;
constexpr UChar32 kLoneSpace = 0xe000;  // keeps a token that is one space from being trimmed away

Status IcuError(UErrorCode code, std::string_view tried) {
  return InternalError(fmt::format("ICU: {}: {}", tried, u_errorName(code)));
}

Result<icu::UnicodeString> FromUtf8(std::string_view utf8) {
  if (utf8.size() > kTextBytesMax) {
    return InvalidArgument(fmt::format("a token text of {} bytes, at most {} are expected",
                                       utf8.size(), kTextBytesMax));
  }
  // A text in UTF-16 has at most as many units as it has bytes in UTF-8.
  const auto size = static_cast<int32_t>(utf8.size());
  std::u16string units(utf8.size(), u'\0');
  int32_t length = 0;
  UErrorCode code = U_ZERO_ERROR;
  u_strFromUTF8(units.data(), size, &length, utf8.data(), size, &code);
  if (code == U_INVALID_CHAR_FOUND) return InvalidArgument("a token text is not UTF-8");
  if (U_FAILURE(code)) return IcuError(code, "cannot read a token text");
  return icu::UnicodeString(units.data(), length);
}

Result<icu::UnicodeString> Decompose(const icu::UnicodeString& text) {
  UErrorCode code = U_ZERO_ERROR;
  const icu::Normalizer2* nfkc = icu::Normalizer2::getNFKCInstance(code);
  const icu::Normalizer2* nfd = icu::Normalizer2::getNFDInstance(code);
  if (U_FAILURE(code)) return IcuError(code, "no normalisation data");
  const icu::UnicodeString composed = nfkc->normalize(text, code);
  icu::UnicodeString decomposed = nfd->normalize(composed, code);
  if (U_FAILURE(code)) return IcuError(code, "cannot normalise a token text");
  return decomposed;
}

bool IsMark(UChar32 c) { return (U_GET_GC_MASK(c) & U_GC_M_MASK) != 0; }
bool IsSpaceRun(UChar32 c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

// Strips marks, lower-cases character by character, makes every run of white space one space.
icu::UnicodeString Fold(const icu::UnicodeString& text) {
  icu::UnicodeString folded;
  bool in_space = false;
  for (int32_t at = 0; at < text.length(); at = text.moveIndex32(at, 1)) {
    const UChar32 c = text.char32At(at);
    if (IsMark(c)) continue;
    // Simple lower-casing is the full one here: U+0130, the only exception, is decomposed by now.
    if (!IsSpaceRun(c)) {
      folded.append(u_tolower(c));
    } else if (!in_space) {
      folded.append(UChar32{' '});
    }
    in_space = IsSpaceRun(c);
  }
  return folded;
}

icu::UnicodeString Trim(const icu::UnicodeString& text) {
  int32_t begin = 0;
  int32_t end = text.length();
  while (begin < end && u_isUWhiteSpace(text.char32At(begin))) begin = text.moveIndex32(begin, 1);
  while (begin < end && u_isUWhiteSpace(text.char32At(end - 1))) end = text.moveIndex32(end, -1);
  return text.tempSubStringBetween(begin, end);
}

}  // namespace

Result<std::string> NormalizeTokenText(std::string_view utf8) {
  ASSIGN_OR_RETURN(const icu::UnicodeString text, FromUtf8(utf8));
  ASSIGN_OR_RETURN(const icu::UnicodeString decomposed, Decompose(text));
  icu::UnicodeString folded = Fold(decomposed);
  const icu::UnicodeString space(UChar32{' '});
  const icu::UnicodeString lone_space(kLoneSpace);
  if (folded == space) folded = lone_space;
  icu::UnicodeString trimmed = Trim(folded);
  trimmed.findAndReplace(lone_space, space);
  std::string normalized;
  trimmed.toUTF8String(normalized);
  return normalized;
}

}  // namespace engram::table
