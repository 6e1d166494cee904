#include "common/table/unicode.h"

#include <fmt/format.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include <climits>

namespace engram::table {

bool IsWhiteSpace(char32_t character) {
  return u_isUWhiteSpace(static_cast<UChar32>(character)) != 0;
}

bool IsWordCharacter(char32_t character) {
  const auto c = static_cast<UChar32>(character);
  constexpr uint32_t kOther = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return (U_GET_GC_MASK(c) & kOther) != 0 || u_hasBinaryProperty(c, UCHAR_ALPHABETIC) != 0 ||
         u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL) != 0;
}

Result<std::string> ComposeNfc(std::string_view utf8) {
  if (utf8.size() > INT32_MAX) {
    return ResourceExhausted(fmt::format(
        "cannot normalise {} bytes of text at once: the limit is {}", utf8.size(), INT32_MAX));
  }
  UErrorCode code = U_ZERO_ERROR;
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(code);
  std::string composed;
  if (U_SUCCESS(code)) {
    icu::StringByteSink<std::string> sink(&composed, static_cast<int32_t>(utf8.size()));
    nfc->normalizeUTF8(0, {utf8.data(), static_cast<int32_t>(utf8.size())}, sink, nullptr, code);
  }
  if (U_SUCCESS(code)) return composed;
  return InternalError(
      fmt::format("ICU: cannot normalise {} bytes of text: {}", utf8.size(), u_errorName(code)));
}

}  // namespace engram::table
