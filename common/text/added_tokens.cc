#include "common/text/added_tokens.h"

#include <algorithm>

#include "common/table/unicode.h"
#include "common/text/utf8.h"

namespace engram::text {
namespace {

constexpr size_t kCharacterBytesMax = 4;

// Bytes of the first character if `is` holds for it, else 0; what is not UTF-8 is no character.
size_t Leading(std::string_view text, bool (*is)(char32_t)) {
  if (text.empty()) return 0;
  const Utf8Step step = StepUtf8(text, 0);
  return step.valid && is(DecodeUtf8(text, 0, step.length)) ? step.length : 0;
}

// The same of the last character.
size_t Trailing(std::string_view text, bool (*is)(char32_t)) {
  for (size_t length = 1; length <= std::min(text.size(), kCharacterBytesMax); ++length) {
    const Utf8Step step = StepUtf8(text, text.size() - length);
    if (!step.valid || step.length != length) continue;
    return is(DecodeUtf8(text, text.size() - length, length)) ? length : 0;
  }
  return 0;
}

bool IsSingleWord(std::string_view text, size_t begin, size_t end) {
  return Trailing(text.substr(0, begin), table::IsWordCharacter) == 0 &&
         Leading(text.substr(end), table::IsWordCharacter) == 0;
}

}  // namespace

void AddedTokens::Add(AddedToken token) {
  auto& bucket = by_first_byte_[static_cast<uint8_t>(token.content[0])];
  const auto at = std::find_if(bucket.begin(), bucket.end(), [&](const AddedToken& other) {
    return other.content.size() < token.content.size();
  });
  bucket.insert(at, std::move(token));
}

const AddedToken* AddedTokens::FindAt(std::string_view text) const {
  for (const AddedToken& token : by_first_byte_[static_cast<uint8_t>(text[0])]) {
    if (text.starts_with(token.content)) return &token;
  }
  return nullptr;
}

std::vector<AddedTokens::Match> AddedTokens::FindAll(std::string_view text) const {
  std::vector<Match> matches;
  size_t taken = 0;  // end of the last match
  for (size_t at = 0; at < text.size();) {
    const AddedToken* token = FindAt(text.substr(at));
    if (token == nullptr) {
      ++at;
      continue;
    }
    Match match{at, at + token->content.size(), token->id};
    at = match.end;
    if (token->single_word && !IsSingleWord(text, match.begin, match.end)) continue;
    while (token->lstrip && match.begin > taken) {
      const size_t space = Trailing(text.substr(0, match.begin), table::IsWhiteSpace);
      if (space == 0) break;
      match.begin = std::max(match.begin - space, taken);
    }
    while (token->rstrip) {
      const size_t space = Leading(text.substr(match.end), table::IsWhiteSpace);
      if (space == 0) break;
      match.end += space;
    }
    taken = match.end;
    matches.push_back(match);
  }
  return matches;
}

}  // namespace engram::text
