#include "compute/model/folder_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>

#include "common/io/read_file.h"
#include "compute/model/config_reader.h"

namespace engram::compute {
namespace {

constexpr const char* kGeneration = "generation_config.json";
constexpr const char* kTokenizer = "tokenizer.json";
constexpr const char* kTokenizerConfig = "tokenizer_config.json";
constexpr const char* kSpecialTokens = "special_tokens_map.json";

// Empty when there is no such file.
Result<json::object> ReadObject(const std::string& directory, const char* name) {
  const std::string path = directory + "/" + name;
  if (!io::HasEntry(path)) return json::object();
  ASSIGN_OR_RETURN(json::value value, io::ParseJsonFile(path));
  if (!value.is_object()) return InvalidArgument(path + ": a JSON object is expected");
  return std::move(value.get_object());
}

const json::value* Find(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

// A token is written as its text or as an object that has it.
std::string TokenText(const json::value* token) {
  if (token != nullptr && token->is_object()) token = Find(token->get_object(), "content");
  return token != nullptr && token->is_string() ? std::string(token->get_string()) : std::string();
}

// Texts of the added tokens by id, as tokenizer.json has them.
std::map<int64_t, std::string> AddedTokens(const json::object& tokenizer) {
  std::map<int64_t, std::string> tokens;
  const json::value* added = Find(tokenizer, "added_tokens");
  if (added == nullptr || !added->is_array()) return tokens;
  for (const json::value& token : added->get_array()) {
    const json::value* id = token.is_object() ? Find(token.get_object(), "id") : nullptr;
    if (id != nullptr && id->is_int64()) tokens[id->get_int64()] = TokenText(&token);
  }
  return tokens;
}

class LeftOut {
 public:
  LeftOut(std::string directory, std::string_view chat_template)
      : directory_(std::move(directory)), chat_template_(chat_template) {}

  std::string Line() {
    const json::object tokenizer = Read(kTokenizer);
    const json::object tokenizer_config = Read(kTokenizerConfig);
    ChatTemplates(tokenizer_config);
    PromptBorders(tokenizer, tokenizer_config);
    Flags(tokenizer_config);
    MissingTokens(tokenizer, tokenizer_config);
    Sampling(Read(kGeneration));
    return fmt::format("{}", fmt::join(parts_, "; "));
  }

 private:
  json::object Read(const char* name) {
    Result<json::object> object = ReadObject(directory_, name);
    if (object.ok()) return std::move(*object);
    parts_.push_back(fmt::format("{} ({})", name, object.status().message()));
    return {};
  }

  void ChatTemplates(const json::object& tokenizer_config) {
    std::vector<std::string> found;
    for (const char* name :
         {"chat_template.jinja", "chat_template.json", "additional_chat_templates"}) {
      if (io::HasEntry(directory_ + "/" + name)) found.emplace_back(name);
    }
    if (Find(tokenizer_config, "chat_template") != nullptr) {
      found.push_back(fmt::format("chat_template of {}", kTokenizerConfig));
    }
    if (found.empty()) return;
    parts_.push_back(fmt::format("{} (chat prompts are made by api.chat_template={})",
                                 fmt::join(found, ", "), chat_template_));
  }

  // What would be put before and behind every prompt.
  void PromptBorders(const json::object& tokenizer, const json::object& tokenizer_config) {
    std::vector<std::string> tokens;
    if (const json::value* step = Find(tokenizer, "post_processor")) Collect(*step, tokens);
    std::vector<std::string> asking;
    if (!tokens.empty()) asking.push_back(fmt::format("post_processor of {}", kTokenizer));
    for (const auto& [flag, token] :
         {std::pair("add_bos_token", "bos_token"), std::pair("add_eos_token", "eos_token")}) {
      const json::value* value = Find(tokenizer_config, flag);
      if (value == nullptr || *value != true) continue;
      asking.push_back(fmt::format("{} of {}", flag, kTokenizerConfig));
      Note(TokenText(Find(tokenizer_config, token)), tokens);
    }
    if (asking.empty()) return;
    parts_.push_back(fmt::format("{} (no {} is added to a prompt: write it where it is needed)",
                                 fmt::join(asking, ", "), fmt::join(tokens, " or ")));
  }

  static void Note(const std::string& token, std::vector<std::string>& tokens) {
    if (!token.empty() && std::find(tokens.begin(), tokens.end(), token) == tokens.end()) {
      tokens.push_back(token);
    }
  }

  // Tokens that a post-processor adds to a single text.
  static void Collect(const json::value& step, std::vector<std::string>& tokens) {
    if (!step.is_object()) return;
    const json::object& object = step.get_object();
    for (const char* list : {"processors", "single"}) {
      const json::value* items = Find(object, list);
      if (items == nullptr || !items->is_array()) continue;
      for (const json::value& item : items->get_array()) Collect(item, tokens);
    }
    const json::value* special = Find(object, "SpecialToken");
    if (special != nullptr && special->is_object()) {
      const json::value* id = Find(special->get_object(), "id");
      if (id != nullptr && id->is_string()) Note(std::string(id->get_string()), tokens);
    }
    for (const char* pair : {"cls", "sep"}) {  // of BertProcessing: [text, id]
      const json::value* token = Find(object, pair);
      if (token == nullptr || !token->is_array() || token->get_array().empty()) continue;
      Note(TokenText(&token->get_array()[0]), tokens);
    }
  }

  void Flags(const json::object& tokenizer_config) {
    const std::pair<const char*, const char*> kFlags[] = {
        {"add_prefix_space", "no space is put before a text"},
        {"clean_up_tokenization_spaces", "answers keep the spaces before punctuation"},
        {"split_special_tokens", "special tokens in a prompt are tokens"}};
    for (const auto& [flag, consequence] : kFlags) {
      const json::value* value = Find(tokenizer_config, flag);
      if (value == nullptr || *value != true) continue;
      parts_.push_back(fmt::format("{} of {} ({})", flag, kTokenizerConfig, consequence));
    }
  }

  void MissingTokens(const json::object& tokenizer, const json::object& tokenizer_config) {
    const json::value* decoder = Find(tokenizer_config, "added_tokens_decoder");
    if (decoder == nullptr || !decoder->is_object() || tokenizer.empty()) return;
    std::vector<std::string> known;
    for (auto& [id, text] : AddedTokens(tokenizer)) known.push_back(fmt::format("{} {}", id, text));
    std::sort(known.begin(), known.end());
    std::string first;
    int count = 0;
    for (const auto& [id, token] : decoder->get_object()) {
      const std::string text = TokenText(&token);
      const std::string sought = fmt::format("{} {}", std::string_view(id), text);
      if (text.empty() || std::binary_search(known.begin(), known.end(), sought)) continue;
      if (count++ == 0) first = text;
    }
    if (count == 0) return;
    parts_.push_back(fmt::format(
        "{} of added_tokens_decoder of {}, {} first, that {} does not have (they are text)", count,
        kTokenizerConfig, first, kTokenizer));
  }

  void Sampling(const json::object& generation) {
    static constexpr std::array<std::string_view, 9> kHarmless = {
        "eos_token_id",           "bos_token_id",         "pad_token_id",
        "decoder_start_token_id", "transformers_version", "use_cache",
        "cache_implementation",   "_from_model_config",   "_commit_hash"};
    std::vector<std::string> settings;
    for (const auto& [key, value] : generation) {
      if (value.is_null() || std::find(kHarmless.begin(), kHarmless.end(), key) != kHarmless.end())
        continue;
      settings.push_back(fmt::format("{}={}", std::string_view(key), json::serialize(value)));
    }
    if (settings.empty()) return;
    parts_.push_back(fmt::format("{} of {} (what a request leaves out has the API's default)",
                                 fmt::join(settings, ", "), kGeneration));
  }

  std::string directory_;
  std::string_view chat_template_;
  std::vector<std::string> parts_;
};

}  // namespace

Status ReadEosIds(const std::string& directory, ModelConfig& config) {
  ASSIGN_OR_RETURN(const json::object generation, ReadObject(directory, kGeneration));
  ConfigReader reader(generation, directory + "/" + kGeneration);
  if (reader.Find("eos_token_id") != nullptr) {
    config.eos_ids = reader.TokenIds("eos_token_id", config.vocab_size);
    return reader.status();
  }
  if (!config.eos_ids.empty()) return OkStatus();
  const char* file = kTokenizerConfig;
  ASSIGN_OR_RETURN(json::object names, ReadObject(directory, file));
  if (Find(names, "eos_token") == nullptr) {
    file = kSpecialTokens;
    ASSIGN_OR_RETURN(names, ReadObject(directory, file));
  }
  const std::string eos = TokenText(Find(names, "eos_token"));
  if (eos.empty()) return OkStatus();
  ASSIGN_OR_RETURN(const json::object tokenizer, ReadObject(directory, kTokenizer));
  for (const auto& [id, text] : AddedTokens(tokenizer)) {
    if (text != eos || id < 0 || id >= config.vocab_size) continue;
    config.eos_ids.push_back(static_cast<int32_t>(id));
    return OkStatus();
  }
  return InvalidArgument(fmt::format(
      "{}/{}: eos_token \"{}\" is no added token of {} with an id below vocab_size {}, and neither "
      "config.json nor {} has an eos_token_id",
      directory, file, eos, kTokenizer, config.vocab_size, kGeneration));
}

std::string LeftOutOfFolder(const std::string& directory, std::string_view chat_template) {
  return LeftOut(directory, chat_template).Line();
}

}  // namespace engram::compute
