#include "compute/api/api_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <optional>
#include <random>

#include "compute/api/field_reader.h"
#include "compute/api/request_fields.h"

namespace engram::compute {
namespace {

constexpr int64_t kAnyLength = INT64_MAX - 1;  // /tokenize counts any text's tokens
constexpr char kTooLong[] = "context_length_exceeded";

// Where the names of fields that are not known go; null: they are refused.
using UnknownNames = std::vector<std::string>*;

// Of the request itself where `param` is empty.
void CheckNames(FieldReader& fields, const json::object& object, ObjectKind kind,
                std::string_view param, UnknownNames unknown) {
  if (!fields.ok()) return;
  if (ApiError error = CheckFields(object, kind, param, unknown); !error.ok()) {
    fields.Fail(std::move(error));
  }
}

void ReadPenaltiesAndCuts(FieldReader& fields, const ApiModel& model, SamplingOptions& sampling) {
  sampling.temperature = fields.Double("temperature", 0, 1000, 1);
  sampling.top_p = fields.Double("top_p", 0, 1, 1);
  if (!(sampling.top_p > 0)) fields.Fail("top_p", "top_p must be above 0; temperature 0 is greedy");
  // -1 is how some clients say "all".
  sampling.top_k = std::max<int64_t>(0, fields.Int("top_k", -1, INT64_MAX, 0));
  sampling.min_p = fields.Double("min_p", 0, 1, 0);
  sampling.presence_penalty = fields.Double("presence_penalty", -2, 2, 0);
  sampling.frequency_penalty = fields.Double("frequency_penalty", -2, 2, 0);
  const json::value* const biases = fields.Find("logit_bias");
  if (biases == nullptr) return;
  if (!biases->is_object()) return fields.FailType("logit_bias", "an object", *biases);
  for (const auto& [key, value] : biases->get_object()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    const bool whole = error == std::errc() && end == key.data() + key.size();
    const double bias = value.is_number() ? value.to_number<double>() : NAN;
    if (!whole || id < 0 || id >= model.vocab_size || !(bias >= -100 && bias <= 100)) {
      return fields.Fail(
          "logit_bias",
          fmt::format("logit_bias maps token ids below {} to numbers in -100..100; \"{}\": {} is "
                      "neither",
                      model.vocab_size, std::string_view(key), json::serialize(value)));
    }
    sampling.logit_bias.emplace_back(id, static_cast<float>(bias));
  }
}

void ReadSeed(FieldReader& fields, ApiRequest& request) {
  uint64_t& seed = request.completion.sampling.seed;
  const json::value* const given = fields.Find("seed");
  if (given == nullptr) {
    // Few enough bits that every client reads it back exactly: answers say it.
    const uint64_t high = std::random_device()() & 0x1fffff;
    request.seed = seed = (high << 32) | std::random_device()();
  } else if (given->is_uint64()) {
    request.seed = seed = given->get_uint64();
  } else {
    const int64_t number = fields.Int("seed", INT64_MIN, INT64_MAX, 0);
    request.seed = number;
    seed = static_cast<uint64_t>(number);
  }
}

// Those before the first that is none, which is the request's error.
std::vector<int32_t> IdsOf(FieldReader& fields, std::string_view field, const ApiModel& model,
                           const json::array& array) {
  std::vector<int32_t> ids;
  for (const json::value& id : array) {
    if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() >= model.vocab_size) {
      fields.FailType(field, fmt::format("token ids below {}", model.vocab_size), id);
      break;
    }
    ids.push_back(static_cast<int32_t>(id.get_int64()));
  }
  return ids;
}

void ReadStopIds(FieldReader& fields, const ApiModel& model, std::vector<int32_t>& ids) {
  const json::value* const list = fields.Find("stop_token_ids");
  if (list == nullptr) return;
  if (!list->is_array()) return fields.FailType("stop_token_ids", "a list of token ids", *list);
  if (list->get_array().size() > kStopIdsMax) {
    return fields.Fail("stop_token_ids",
                       fmt::format("stop_token_ids has {} ids; at most {} are allowed",
                                   list->get_array().size(), kStopIdsMax));
  }
  ids = IdsOf(fields, "stop_token_ids", model, list->get_array());
}

void ReadStop(FieldReader& fields, std::vector<std::string>& stop) {
  const json::value* const value = fields.Find("stop");
  if (value == nullptr) return;
  const auto take = [&](const json::value& text) {
    if (!text.is_string()) return fields.FailType("stop", "a string or a list of strings", text);
    if (text.get_string().empty() || text.get_string().size() > kStopBytesMax) {
      return fields.Fail("stop", fmt::format("a stop string has 1 to {} bytes", kStopBytesMax));
    }
    stop.emplace_back(text.get_string());
  };
  if (!value->is_array()) return take(*value);
  if (value->get_array().size() > kStopStringsMax) {
    return fields.Fail("stop", fmt::format("stop has {} strings; at most {} are allowed",
                                           value->get_array().size(), kStopStringsMax));
  }
  for (const json::value& text : value->get_array()) take(text);
}

void ReadStream(FieldReader& fields, ApiRequest& request, UnknownNames unknown) {
  request.stream = fields.Bool("stream", false);
  const json::value* const options = fields.Find("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) return fields.FailType("stream_options", "an object", *options);
  CheckNames(fields, options->get_object(), kStreamOptions, "stream_options", unknown);
  FieldReader inner(options->get_object());
  request.include_usage = inner.Bool("include_usage", false);
  if (!inner.ok()) fields.Fail("stream_options", inner.error().message);
  if (request.include_usage && !request.stream) {
    fields.Fail("stream_options", "stream_options.include_usage is for \"stream\": true only");
  }
}

// What both kinds of request have in common.
void ReadCommon(FieldReader& fields, const ApiModel& model, ApiRequest& request,
                UnknownNames unknown) {
  ReadPenaltiesAndCuts(fields, model, request.completion.sampling);
  ReadSeed(fields, request);
  ReadStop(fields, request.stop);
  ReadStopIds(fields, model, request.completion.stop_ids);
  request.show_stop = fields.Bool("include_stop_str_in_output", false);
  ReadStream(fields, request, unknown);
  request.completion.ignore_eos = fields.Bool("ignore_eos", false);
}

void CheckModel(FieldReader& fields, const ApiModel& model) {
  const std::string name = fields.String("model", model.name);
  if (!fields.ok() || name == model.name) return;
  fields.Fail({404,
               fmt::format("the model \"{}\" does not exist here; it is \"{}\"", name, model.name),
               "model", "model_not_found"});
}

// Tokens: one more is asked for at least.
int64_t LongestPrompt(const ApiModel& model) { return model.positions_max - 1; }

// Whether text of `bytes` may be `tokens_max` tokens or fewer; else that is the request's error,
// before time is spent on encoding it.
bool MayFit(FieldReader& fields, std::string_view field, const text::Tokenizer& tokenizer,
            size_t bytes, int64_t tokens_max) {
  if (!fields.ok()) return false;
  const size_t longest = tokenizer.token_bytes_max();
  const auto least = static_cast<int64_t>((bytes + longest - 1) / longest);
  if (least <= tokens_max) return true;
  fields.Fail(ApiError{413,
                       fmt::format("the prompt has at least {} tokens; together with what is asked "
                                   "for they may be {}",
                                   least, tokens_max + 1),
                       std::string(field), kTooLong});
  return false;
}

void Encode(FieldReader& fields, const text::Tokenizer& tokenizer, std::string_view text,
            int64_t tokens_max, std::vector<std::vector<int32_t>>& prompts) {
  if (!MayFit(fields, "prompt", tokenizer, text.size(), tokens_max)) return;
  Result<std::vector<int32_t>> ids = tokenizer.Encode(text);
  if (!ids.ok()) return fields.Fail("prompt", ids.status().message());
  prompts.push_back(std::move(*ids));
}

void TakeIds(FieldReader& fields, std::string_view field, const ApiModel& model,
             const json::array& array, std::vector<std::vector<int32_t>>& prompts) {
  prompts.push_back(IdsOf(fields, field, model, array));
}

void ReadPrompts(FieldReader& fields, const ApiModel& model, ApiRequest& request) {
  static constexpr std::string_view kExpected =
      "a string, a list of strings, a list of token ids or a list of such lists";
  const json::value* const prompt = fields.Find("prompt");
  if (prompt == nullptr) return fields.Fail("prompt", "prompt is missing");
  if (prompt->is_string()) {
    return Encode(fields, *model.tokenizer, prompt->get_string(), LongestPrompt(model),
                  request.prompts);
  }
  if (!prompt->is_array()) return fields.FailType("prompt", kExpected, *prompt);
  const json::array& list = prompt->get_array();
  if (list.empty()) return fields.Fail("prompt", "prompt is an empty list");
  if (list[0].is_number()) return TakeIds(fields, "prompt", model, list, request.prompts);
  if (static_cast<int64_t>(list.size()) > model.prompts_max) {
    return fields.Fail("prompt", fmt::format("{} prompts; at most {} are allowed in one request",
                                             list.size(), model.prompts_max));
  }
  for (const json::value& one : list) {
    if (one.is_string()) {
      Encode(fields, *model.tokenizer, one.get_string(), LongestPrompt(model), request.prompts);
    } else if (one.is_array()) {
      TakeIds(fields, "prompt", model, one.get_array(), request.prompts);
    } else {
      return fields.FailType("prompt", kExpected, one);
    }
  }
}

// A message's content: text, or a list of parts of type text.
std::optional<std::string> ContentOf(FieldReader& fields, const json::value& content,
                                     UnknownNames unknown) {
  if (content.is_string()) return std::string(content.get_string());
  if (!content.is_array()) {
    fields.FailType("messages", "messages whose content is text", content);
    return std::nullopt;
  }
  std::string text;
  for (const json::value& part : content.get_array()) {
    const json::object* const object = part.if_object();
    const json::value* const type = object != nullptr ? object->if_contains("type") : nullptr;
    const json::value* const piece = object != nullptr ? object->if_contains("text") : nullptr;
    if (type == nullptr || *type != "text" || piece == nullptr || !piece->is_string()) {
      fields.FailType("messages", "messages whose parts are {\"type\":\"text\",\"text\":...}",
                      part);
      return std::nullopt;
    }
    CheckNames(fields, *object, kContentPart, "messages", unknown);
    text += piece->get_string();
  }
  return text;
}

std::vector<ChatMessage> ReadMessages(FieldReader& fields, UnknownNames unknown) {
  std::vector<ChatMessage> messages;
  const json::value* const list = fields.Find("messages");
  if (list == nullptr || !list->is_array() || list->get_array().empty()) {
    fields.Fail("messages", "messages must be a list with at least one message");
    return messages;
  }
  for (const json::value& value : list->get_array()) {
    const json::object* const object = value.if_object();
    const json::value* const role = object != nullptr ? object->if_contains("role") : nullptr;
    const json::value* const content = object != nullptr ? object->if_contains("content") : nullptr;
    if (role == nullptr || !role->is_string() || content == nullptr) {
      fields.FailType("messages", "objects with a role and a content", value);
      return messages;
    }
    std::string name(role->get_string());
    if (name == "developer") name = "system";
    if (name != "system" && name != "user" && name != "assistant") {
      fields.Fail("messages", fmt::format("role \"{}\" is not system, user or assistant", name));
      return messages;
    }
    CheckNames(fields, *object, kMessage, "messages", unknown);
    std::optional<std::string> text = ContentOf(fields, *content, unknown);
    if (!text) return messages;
    messages.push_back({std::move(name), std::move(*text)});
  }
  return messages;
}

void EncodeChat(FieldReader& fields, const ApiModel& model, UnknownNames unknown,
                int64_t tokens_max, std::vector<std::vector<int32_t>>& prompts) {
  const std::vector<ChatMessage> messages = ReadMessages(fields, unknown);
  const bool turn_begins = fields.Bool("add_generation_prompt", true);
  if (!fields.ok()) return;
  const std::vector<text::TextPart> parts = RenderChat(model.chat_template, messages, turn_begins);
  size_t bytes = 0;
  for (const text::TextPart& part : parts) bytes += part.text.size();
  if (!MayFit(fields, "messages", *model.tokenizer, bytes, tokens_max)) return;
  Result<std::vector<int32_t>> ids = model.tokenizer->EncodeParts(parts);
  if (!ids.ok()) return fields.Fail("messages", ids.status().message());
  prompts.push_back(std::move(*ids));
}

// Sets what may still be generated; nothing is generated past the model's last position.
void SetLength(FieldReader& fields, const ApiModel& model, int64_t tokens_max,
               ApiRequest& request) {
  if (!fields.ok()) return;
  int64_t longest = 0;
  for (const auto& prompt : request.prompts) {
    if (prompt.empty()) {
      return fields.Fail("prompt", "the prompt has no tokens; at least one is needed");
    }
    longest = std::max(longest, static_cast<int64_t>(prompt.size()));
  }
  const int64_t room = model.positions_max - longest;
  const bool fits = tokens_max < 0 ? room >= 1 : room >= tokens_max;
  if (!fits) {
    fields.Fail({413,
                 fmt::format("the prompt has {} tokens and {} more are asked for; together they "
                             "may be {}",
                             longest, tokens_max < 0 ? 1 : tokens_max, model.positions_max),
                 request.chat ? "messages" : "prompt", kTooLong});
  }
  request.completion.tokens_max = tokens_max < 0 ? room : tokens_max;
}

// Reads a body of `kind` by `read`, unless something is wrong with it before. `ignored` gets the
// names that the model allows to be unknown.
ApiError ReadBody(std::string_view body, const ApiModel& model, ObjectKind kind,
                  std::vector<std::string>& ignored,
                  const std::function<void(FieldReader&, UnknownNames)>& read) {
  const Result<json::value> value = io::ParseJson(body, "the body");
  if (!value.ok()) return {400, value.status().message(), "", "invalid_json"};
  if (!value->is_object()) return {400, "the body must be a JSON object", "", "invalid_json"};
  FieldReader fields(value->get_object());
  const UnknownNames unknown = model.allow_unknown_fields ? &ignored : nullptr;
  CheckModel(fields, model);
  CheckNames(fields, value->get_object(), kind, "", unknown);
  if (fields.ok()) read(fields, unknown);
  return fields.error();
}

}  // namespace

bool ApiRequest::HidesLast(FinishReason reason, std::span<const SampledToken> tokens) const {
  if (reason != FinishReason::kStop || tokens.empty()) return false;
  const std::vector<int32_t>& ids = completion.stop_ids;
  const bool asked = std::find(ids.begin(), ids.end(), tokens.back().token) != ids.end();
  return !(asked && show_stop);
}

ApiError ParseCompletion(std::string_view body, const ApiModel& model, ApiRequest& request) {
  const auto read = [&](FieldReader& fields, UnknownNames unknown) {
    ReadCommon(fields, model, request, unknown);
    request.logprobs = fields.Has("logprobs");
    request.completion.sampling.top_logprobs =
        static_cast<int>(fields.Int("logprobs", 0, SamplingOptions::kTopMax, 0));
    const int64_t tokens_max = fields.Int("max_tokens", 1, INT32_MAX, 16);
    ReadPrompts(fields, model, request);
    SetLength(fields, model, tokens_max, request);
  };
  return ReadBody(body, model, kCompletion, request.unknown_fields, read);
}

ApiError ParseChat(std::string_view body, const ApiModel& model, ApiRequest& request) {
  request.chat = true;
  const auto read = [&](FieldReader& fields, UnknownNames unknown) {
    ReadCommon(fields, model, request, unknown);
    request.logprobs = fields.Bool("logprobs", false);
    request.completion.sampling.top_logprobs =
        static_cast<int>(fields.Int("top_logprobs", 0, SamplingOptions::kTopMax, 0));
    if (request.completion.sampling.top_logprobs > 0 && !request.logprobs) {
      fields.Fail("top_logprobs", "top_logprobs needs \"logprobs\": true");
    }
    // The older name counts only when the newer is absent.
    const int64_t old_max = fields.Int("max_tokens", 1, INT32_MAX, -1);
    const int64_t tokens_max = fields.Int("max_completion_tokens", 1, INT32_MAX, old_max);
    EncodeChat(fields, model, unknown, LongestPrompt(model), request.prompts);
    SetLength(fields, model, tokens_max, request);
  };
  return ReadBody(body, model, kChat, request.unknown_fields, read);
}

ApiError ParseTokenize(std::string_view body, const ApiModel& model, std::vector<int32_t>& ids) {
  std::vector<std::string> ignored;
  std::vector<std::vector<int32_t>> prompts;
  const auto read = [&](FieldReader& fields, UnknownNames unknown) {
    if (fields.Has("messages")) {
      EncodeChat(fields, model, unknown, kAnyLength, prompts);
    } else if (!fields.Has("prompt")) {
      fields.Fail("prompt", "prompt (text) or messages is missing");
    } else {
      Encode(fields, *model.tokenizer, fields.String("prompt", ""), kAnyLength, prompts);
    }
    if (fields.ok()) ids = std::move(prompts.at(0));
  };
  return ReadBody(body, model, kTokenize, ignored, read);
}

ApiError ParseDetokenize(std::string_view body, const ApiModel& model, std::vector<int32_t>& ids) {
  std::vector<std::string> ignored;
  const auto read = [&](FieldReader& fields, UnknownNames) {
    const json::value* const tokens = fields.Find("tokens");
    if (tokens == nullptr || !tokens->is_array()) {
      return fields.Fail("tokens", "tokens must be a list of token ids");
    }
    ids = IdsOf(fields, "tokens", model, tokens->get_array());
  };
  return ReadBody(body, model, kDetokenize, ignored, read);
}

}  // namespace engram::compute
