// tokenizer.json to a Tokenizer; what is not understood is refused, never ignored. (The
// post_processor is not read: no BOS or EOS is added by us.)
#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "common/table/unicode.h"
#include "common/text/byte_level.h"
#include "common/text/tokenizer_state.h"

namespace engram::text {
namespace {

constexpr int64_t kVocabularyMax = 16'000'000;
constexpr size_t kAnyTextBytes = size_t{1} << 30;  // as long as a text can be

Status Unsupported(const std::string& what, std::string_view key, const json::value& value) {
  return InvalidArgument(
      fmt::format("{}: \"{}\": {} is not supported", what, key, json::serialize(value)));
}

const json::value* Find(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool IsFalse(const json::value& value) { return value.is_bool() && !value.get_bool(); }
bool IsEmptyString(const json::value& value) {
  return value.is_string() && value.get_string().empty();
}

Result<bool> Flag(const json::object& object, const char* key, bool fallback,
                  const std::string& what) {
  const json::value* value = Find(object, key);
  if (value == nullptr) return fallback;
  if (value->is_bool()) return value->get_bool();
  return InvalidArgument(
      fmt::format("{}: \"{}\": {} is neither true nor false", what, key, json::serialize(*value)));
}

// Whether texts are brought into normalisation form C: no step, NFC, or a sequence of these.
Result<bool> IsNfc(const json::value& normalizer, const std::string& path) {
  const json::object* object = normalizer.if_object();
  const json::value* type = object == nullptr ? nullptr : object->if_contains("type");
  if (type != nullptr && *type == "NFC") return true;
  const json::value* steps = object == nullptr ? nullptr : object->if_contains("normalizers");
  if (steps == nullptr || !steps->is_array()) return Unsupported(path, "normalizer", normalizer);
  bool nfc = false;
  for (const json::value& step : steps->get_array()) {
    if (step.is_object() && step.get_object().if_contains("normalizers") != nullptr) {
      return Unsupported(path, "normalizer", normalizer);
    }
    ASSIGN_OR_RETURN(nfc, IsNfc(step, path));
  }
  return nfc;
}

// What is needed of the document but its vocabulary and normalizer.
Status CheckFeatures(const json::object& document, const std::string& path) {
  if (const json::value* truncation = Find(document, "truncation")) {
    return Unsupported(path, "truncation", *truncation);
  }
  const json::value* decoder = Find(document, "decoder");
  if (decoder == nullptr || !decoder->is_object()) {
    return InvalidArgument(path + ": no \"decoder\"; only ByteLevel is supported");
  }
  const json::value* type = decoder->get_object().if_contains("type");
  if (type == nullptr || *type != "ByteLevel") return Unsupported(path, "decoder", *decoder);
  return OkStatus();
}

Status CheckModel(const json::object& model, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string type, io::GetString(model, "type", path + ": model"));
  if (type != "BPE") {
    return InvalidArgument(
        fmt::format("{}: model type \"{}\" is not supported, only BPE", path, type));
  }
  for (const char* key : {"dropout", "byte_fallback"}) {
    const json::value* value = Find(model, key);
    if (value != nullptr && !IsFalse(*value)) return Unsupported(path + ": model", key, *value);
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json::value* value = Find(model, key);
    if (value != nullptr && !IsEmptyString(*value)) {
      return Unsupported(path + ": model", key, *value);
    }
  }
  return OkStatus();
}

class Loader {
 public:
  Loader(const std::string& path, PreTokenizer pre_tokenizer)
      : path_(path), state_(std::make_unique<Tokenizer::State>(std::move(pre_tokenizer))) {}

  void UseNfc() { state_->nfc = true; }

  // `ignore_merges`: a word that is a token is that token, whatever the merges make of it.
  Status AddVocabulary(const json::object& vocabulary, bool ignore_merges) {
    for (const auto& [key, id] : vocabulary) {
      const std::string spelling(key);
      RETURN_IF_ERROR(Place(spelling, id));
      const std::optional<std::string> bytes = FromByteLevel(spelling);
      if (ignore_merges && bytes) {
        state_->id_of_word.emplace(*bytes, static_cast<int32_t>(id.get_int64()));
      }
    }
    return OkStatus();
  }

  // After the added tokens: some vocabularies have those bytes there that no UTF-8 contains.
  Status FindByteTokens() {
    for (int byte = 0; byte < 256; ++byte) {
      const auto value = static_cast<uint8_t>(byte);
      const char character = static_cast<char>(value);
      const auto found = state_->id_of_spelling.find(ToByteLevel(std::string_view(&character, 1)));
      if (found == state_->id_of_spelling.end()) {
        return InvalidArgument(
            fmt::format("{}: the vocabulary has no token for byte {:#04x}", path_, byte));
      }
      state_->merger.SetByteToken(value, found->second);
    }
    return OkStatus();
  }

  Status AddMerges(const json::array& merges) {
    int32_t rank = 0;
    for (const json::value& merge : merges) {
      std::string left, right;
      if (!SplitMerge(merge, left, right)) {
        return InvalidArgument(fmt::format("{}: merge {}: {} is not a pair of tokens", path_, rank,
                                           json::serialize(merge)));
      }
      ASSIGN_OR_RETURN(const int32_t left_id, IdOf(left, merge));
      ASSIGN_OR_RETURN(const int32_t right_id, IdOf(right, merge));
      ASSIGN_OR_RETURN(const int32_t merged_id, IdOf(left + right, merge));
      if (!state_->merger.AddMerge(left_id, right_id, merged_id, rank)) {
        return InvalidArgument(
            fmt::format("{}: merge {} is listed twice", path_, json::serialize(merge)));
      }
      ++rank;
    }
    return OkStatus();
  }

  Status AddAddedToken(const json::object& token) {
    const std::string what = path_ + ": added token";
    ASSIGN_OR_RETURN(const std::string content, io::GetString(token, "content", what));
    ASSIGN_OR_RETURN(const int64_t id, io::GetInt(token, "id", what));
    if (content.empty()) return InvalidArgument(fmt::format("{} {} is empty", what, id));
    AddedToken added{content, static_cast<int32_t>(id)};
    ASSIGN_OR_RETURN(added.lstrip, Flag(token, "lstrip", false, what));
    ASSIGN_OR_RETURN(added.rstrip, Flag(token, "rstrip", false, what));
    ASSIGN_OR_RETURN(added.single_word, Flag(token, "single_word", false, what));
    ASSIGN_OR_RETURN(const bool special, Flag(token, "special", false, what));
    ASSIGN_OR_RETURN(const bool normalized, Flag(token, "normalized", !special, what));
    const auto found = state_->id_of_spelling.find(content);
    if (found == state_->id_of_spelling.end()) {
      RETURN_IF_ERROR(Place(content, id));
    } else if (found->second != id) {
      return InvalidArgument(fmt::format("{} \"{}\" has id {} but the vocabulary says {}", what,
                                         content, id, found->second));
    }
    if (!added_.insert(content).second) {
      return InvalidArgument(fmt::format("{} \"{}\" is listed twice", what, content));
    }
    strips_ |= added.lstrip || added.rstrip;
    state_->token_bytes_max = std::max(state_->token_bytes_max, content.size());
    if (normalized && state_->nfc) {
      ASSIGN_OR_RETURN(added.content, state_->Normalize(content));
    }
    (normalized ? state_->normalized_tokens : state_->verbatim_tokens).Add(std::move(added));
    return OkStatus();
  }

  Result<std::unique_ptr<Tokenizer::State>> Finish() {
    if (state_->id_of_spelling.size() != state_->tokens.size()) {
      return InvalidArgument(fmt::format("{}: {} tokens but ids up to {}; ids must be 0, 1, 2, ...",
                                         path_, state_->id_of_spelling.size(),
                                         state_->tokens.size() - 1));
    }
    for (const Tokenizer::State::Token& token : state_->tokens) {
      state_->token_bytes_max = std::max(state_->token_bytes_max, token.bytes.size());
    }
    if (state_->nfc) state_->token_bytes_max *= table::kNfcShrinkMax;
    if (strips_) state_->token_bytes_max = kAnyTextBytes;
    return std::move(state_);
  }

 private:
  Status Place(const std::string& spelling, const json::value& id) {
    const int64_t value = id.is_int64() ? id.get_int64() : -1;
    if (value < 0 || value >= kVocabularyMax) {
      return InvalidArgument(
          fmt::format("{}: token \"{}\" has id {}", path_, spelling, json::serialize(id)));
    }
    const auto index = static_cast<size_t>(value);
    if (index >= state_->tokens.size()) state_->tokens.resize(index + 1);
    Tokenizer::State::Token& token = state_->tokens[index];
    if (!token.spelling.empty() || spelling.empty()) {
      return InvalidArgument(fmt::format("{}: id {} is given to \"{}\" and \"{}\"", path_, value,
                                         token.spelling, spelling));
    }
    token = {spelling, FromByteLevel(spelling).value_or(spelling)};
    state_->id_of_spelling.emplace(spelling, static_cast<int32_t>(value));
    return OkStatus();
  }

  static bool SplitMerge(const json::value& merge, std::string& left, std::string& right) {
    if (merge.is_string()) {
      const std::string text(merge.get_string());
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
        return false;
      left = text.substr(0, space);
      right = text.substr(space + 1);
      return true;
    }
    if (!merge.is_array() || merge.get_array().size() != 2) return false;
    const json::array& pair = merge.get_array();
    if (!pair[0].is_string() || !pair[1].is_string()) return false;
    left = std::string(pair[0].get_string());
    right = std::string(pair[1].get_string());
    return true;
  }

  Result<int32_t> IdOf(const std::string& spelling, const json::value& merge) const {
    const auto found = state_->id_of_spelling.find(spelling);
    if (found != state_->id_of_spelling.end()) return found->second;
    return InvalidArgument(fmt::format("{}: merge {}: the vocabulary has no token \"{}\"", path_,
                                       json::serialize(merge), spelling));
  }

  const std::string& path_;
  std::unique_ptr<Tokenizer::State> state_;
  std::unordered_set<std::string> added_;
  bool strips_ = false;  // an added token takes white space, however much
};

Result<const json::value*> Require(const json::object& object, std::string_view key, bool is_array,
                                   const std::string& what) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || (is_array ? !value->is_array() : !value->is_object())) {
    return InvalidArgument(
        fmt::format("{}: no {} \"{}\"", what, is_array ? "list" : "object", key));
  }
  return value;
}

}  // namespace

Result<Tokenizer> Tokenizer::Load(const std::string& tokenizer_json_path) {
  const std::string& path = tokenizer_json_path;
  ASSIGN_OR_RETURN(const json::value parsed, io::ParseJsonFile(path));
  if (!parsed.is_object()) return InvalidArgument(path + ": not a JSON object");
  const json::object& document = parsed.get_object();
  RETURN_IF_ERROR(CheckFeatures(document, path));
  ASSIGN_OR_RETURN(const json::value* model, Require(document, "model", false, path));
  RETURN_IF_ERROR(CheckModel(model->get_object(), path));
  ASSIGN_OR_RETURN(const json::value* vocabulary,
                   Require(model->get_object(), "vocab", false, path + ": model"));
  ASSIGN_OR_RETURN(const json::value* merges,
                   Require(model->get_object(), "merges", true, path + ": model"));
  ASSIGN_OR_RETURN(const json::value* splitter, Require(document, "pre_tokenizer", false, path));
  ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer,
                   PreTokenizer::FromJson(*splitter, path + ": pre_tokenizer"));
  Loader loader(path, std::move(pre_tokenizer));
  if (const json::value* normalizer = Find(document, "normalizer")) {
    ASSIGN_OR_RETURN(const bool nfc, IsNfc(*normalizer, path));
    if (nfc) loader.UseNfc();
  }
  ASSIGN_OR_RETURN(const bool ignore_merges,
                   Flag(model->get_object(), "ignore_merges", false, path + ": model"));
  RETURN_IF_ERROR(loader.AddVocabulary(vocabulary->get_object(), ignore_merges));
  RETURN_IF_ERROR(loader.AddMerges(merges->get_array()));
  if (Find(document, "added_tokens") != nullptr) {
    ASSIGN_OR_RETURN(const json::value* added, Require(document, "added_tokens", true, path));
    for (const json::value& token : added->get_array()) {
      if (!token.is_object()) return InvalidArgument(path + ": an added token is not an object");
      RETURN_IF_ERROR(loader.AddAddedToken(token.get_object()));
    }
  }
  RETURN_IF_ERROR(loader.FindByteTokens());
  ASSIGN_OR_RETURN(std::unique_ptr<State> state, loader.Finish());
  return Tokenizer(std::move(state));
}

}  // namespace engram::text
