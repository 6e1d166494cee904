// Encoding and decoding; tokenizer_loader.cc fills the state.
#include "common/text/tokenizer.h"

#include <fmt/format.h>

#include "common/table/unicode.h"
#include "common/text/tokenizer_state.h"
#include "common/text/utf8.h"

namespace engram::text {

namespace {

constexpr size_t kTextBytesMax = size_t{1} << 30;  // positions inside a word are 32-bit

Status CheckSize(size_t bytes) {
  if (bytes <= kTextBytesMax) return OkStatus();
  return ResourceExhausted(
      fmt::format("cannot encode {} bytes of text at once: the limit is {}", bytes, kTextBytesMax));
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(state_->tokens.size()); }

size_t Tokenizer::token_bytes_max() const { return state_->token_bytes_max; }

Result<std::string> Tokenizer::State::Normalize(std::string_view text) const {
  if (!nfc) return std::string(text);
  std::string normalized;
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    ASSIGN_OR_RETURN(const std::string composed, table::ComposeNfc(text.substr(0, valid)));
    normalized += composed;
    text.remove_prefix(valid);
    if (text.empty()) break;
    const size_t invalid = StepUtf8(text, 0).length;
    normalized += text.substr(0, invalid);
    text.remove_prefix(invalid);
  }
  return normalized;
}

// Bytes that are not UTF-8 become one byte token each.
Status Tokenizer::State::EncodeOrdinary(std::string_view text, std::vector<int32_t>& ids) const {
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    ASSIGN_OR_RETURN(const auto words, pre_tokenizer.Split(text.substr(0, valid)));
    for (const std::string_view word : words) {
      const auto whole = id_of_word.empty() ? id_of_word.end() : id_of_word.find(std::string(word));
      if (whole == id_of_word.end()) {
        merger.Encode(word, ids);
      } else {
        ids.push_back(whole->second);
      }
    }
    text.remove_prefix(valid);
    if (text.empty()) break;
    const size_t invalid = StepUtf8(text, 0).length;
    for (size_t i = 0; i < invalid; ++i) {
      ids.push_back(merger.byte_token(static_cast<uint8_t>(text[i])));
    }
    text.remove_prefix(invalid);
  }
  return OkStatus();
}

Status Tokenizer::State::EmitAddedToken(int32_t id, std::string& ordinary,
                                        std::vector<int32_t>& ids) const {
  RETURN_IF_ERROR(EncodeOrdinary(ordinary, ids));
  ordinary.clear();
  ids.push_back(id);
  return OkStatus();
}

Status Tokenizer::State::EncodeNormalizedTokens(std::string_view text, std::string& ordinary,
                                                std::vector<int32_t>& ids) const {
  ASSIGN_OR_RETURN(const std::string normalized, Normalize(text));
  const std::string_view view = normalized;
  size_t begin = 0;  // of the text not yet taken
  for (const AddedTokens::Match& match : normalized_tokens.FindAll(view)) {
    if (begin < match.begin) ordinary += view.substr(begin, match.begin - begin);
    RETURN_IF_ERROR(EmitAddedToken(match.id, ordinary, ids));
    begin = match.end;
  }
  ordinary += view.substr(begin);
  return OkStatus();
}

Status Tokenizer::State::EncodeAddedTokens(std::string_view text, std::string& ordinary,
                                           std::vector<int32_t>& ids) const {
  size_t begin = 0;  // of the text not yet taken
  for (const AddedTokens::Match& match : verbatim_tokens.FindAll(text)) {
    if (begin < match.begin) {
      RETURN_IF_ERROR(
          EncodeNormalizedTokens(text.substr(begin, match.begin - begin), ordinary, ids));
    }
    RETURN_IF_ERROR(EmitAddedToken(match.id, ordinary, ids));
    begin = match.end;
  }
  return EncodeNormalizedTokens(text.substr(begin), ordinary, ids);
}

Result<std::vector<int32_t>> Tokenizer::Encode(std::string_view utf8) const {
  RETURN_IF_ERROR(CheckSize(utf8.size()));
  std::vector<int32_t> ids;
  std::string ordinary;
  RETURN_IF_ERROR(state_->EncodeAddedTokens(utf8, ordinary, ids));
  RETURN_IF_ERROR(state_->EncodeOrdinary(ordinary, ids));
  return ids;
}

Result<std::vector<int32_t>> Tokenizer::EncodeParts(std::span<const TextPart> parts) const {
  size_t bytes = 0;
  for (const TextPart& part : parts) bytes += part.text.size();
  RETURN_IF_ERROR(CheckSize(bytes));
  std::vector<int32_t> ids;
  std::string ordinary;
  for (const TextPart& part : parts) {
    if (part.added_tokens) {
      RETURN_IF_ERROR(state_->EncodeAddedTokens(part.text, ordinary, ids));
    } else {
      ASSIGN_OR_RETURN(const std::string normalized, state_->Normalize(part.text));
      ordinary += normalized;
    }
  }
  RETURN_IF_ERROR(state_->EncodeOrdinary(ordinary, ids));
  return ids;
}

Result<std::string> Tokenizer::Decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      return OutOfRange(
          fmt::format("cannot decode token {}: the vocabulary has {}", id, vocab_size()));
    }
    bytes += state_->tokens[static_cast<size_t>(id)].bytes;
  }
  return bytes;
}

Result<std::string> Tokenizer::RawToken(int32_t id) const {
  if (id < 0 || id >= vocab_size()) {
    return OutOfRange(fmt::format("no token {}: the vocabulary has {}", id, vocab_size()));
  }
  return state_->tokens[static_cast<size_t>(id)].spelling;
}

}  // namespace engram::text
