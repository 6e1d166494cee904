#include "compute/api/answer_json.h"

#include <fmt/format.h>

#include <utility>

#include "common/text/utf8.h"

namespace engram::compute {
namespace {

json::object ChatToken(const text::Tokenizer& tokenizer, const TokenLogprob& token) {
  const std::string own = TokenBytes(tokenizer, token.token);
  json::array bytes;
  for (const char byte : own) bytes.push_back(static_cast<unsigned char>(byte));
  return {{"token", text::ReplaceInvalidUtf8(own)},
          {"logprob", token.logprob},
          {"bytes", std::move(bytes)}};
}

json::object ChatLogprobs(const text::Tokenizer& tokenizer,
                          const std::vector<SampledToken>& tokens) {
  json::array content;
  for (const SampledToken& token : tokens) {
    json::object entry = ChatToken(tokenizer, {token.token, token.logprob});
    json::array top;
    for (const TokenLogprob& other : token.top) top.push_back(ChatToken(tokenizer, other));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

// The token as completions' logprobs name it: its text, or "bytes:\xe2\x82" (as OpenAI writes it)
// when that is no whole characters.
std::string TokenName(const text::Tokenizer& tokenizer, int32_t token) {
  const std::string bytes = TokenBytes(tokenizer, token);
  if (text::ValidUtf8Prefix(bytes) == bytes.size()) return bytes;
  std::string name = "bytes:";
  for (const char byte : bytes) name += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return name;
}

// The likeliest tokens under distinct names: the chosen token keeps its own, and a later token of
// the same name is "token_id:N".
json::object TopByName(const text::Tokenizer& tokenizer, const SampledToken& chosen,
                       const std::string& chosen_name) {
  json::object top;
  for (const TokenLogprob& other : chosen.top) {
    std::string name = TokenName(tokenizer, other.token);
    const bool taken = top.contains(name) || name == chosen_name;
    if (taken && other.token != chosen.token) name = fmt::format("token_id:{}", other.token);
    top[name] = other.logprob;
  }
  return top;
}

json::object TextLogprobs(const text::Tokenizer& tokenizer, const std::vector<SampledToken>& tokens,
                          TextOffsets offsets_before) {
  json::array names, logprobs, tops, offsets;
  for (const SampledToken& token : tokens) {
    const std::string name = TokenName(tokenizer, token.token);
    tops.push_back(TopByName(tokenizer, token, name));
    names.push_back(json::string(name));
    logprobs.push_back(token.logprob);
    offsets.push_back(offsets_before.Next(TokenBytes(tokenizer, token.token)));
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

json::object ChoiceJson(const AnswerHead& head, const text::Tokenizer& tokenizer,
                        const ChoicePart& part, bool whole) {
  json::object choice{{"index", part.index}};
  if (!head.chat) {
    choice["text"] = part.text;
  } else if (whole) {
    choice["message"] = {{"role", "assistant"}, {"content", part.text}, {"refusal", nullptr}};
  } else {
    json::object delta;
    if (part.first) delta["role"] = "assistant";
    if (part.first || !part.text.empty()) delta["content"] = part.text;
    choice["delta"] = std::move(delta);
  }
  if (part.logprobs == nullptr) {
    choice["logprobs"] = nullptr;
  } else if (head.chat) {
    choice["logprobs"] = ChatLogprobs(tokenizer, *part.logprobs);
  } else {
    choice["logprobs"] = TextLogprobs(tokenizer, *part.logprobs, part.offsets);
  }
  choice["finish_reason"] =
      part.finish_reason ? json::value(*part.finish_reason) : json::value(nullptr);
  return choice;
}

// The object's text, in which the value of `key` is `value`, JSON itself.
std::string TextWith(const json::object& object, std::string_view key, std::string_view value) {
  std::string text;
  for (const json::key_value_pair& member : object) {
    text += text.empty() ? '{' : ',';
    text += json::serialize(json::string(member.key()));
    text += ':';
    text += member.key() == key ? value : json::serialize(member.value());
  }
  return text + "}";
}

constexpr std::array<const char*, 4> kLists = {"tokens", "token_logprobs", "top_logprobs",
                                               "text_offset"};

}  // namespace

void LogprobsText::Add(const text::Tokenizer& tokenizer, std::span<const SampledToken> tokens) {
  const auto append = [](std::string& list, const json::value& value) {
    if (!list.empty()) list += ',';
    list += json::serialize(value);
  };
  for (const SampledToken& token : tokens) {
    if (chat_) {
      append(lists_[0], ChatLogprobs(tokenizer, {token}).at("content").at(0));
      continue;
    }
    const json::object one = TextLogprobs(tokenizer, {token}, offsets_);
    for (size_t i = 0; i < kLists.size(); ++i) append(lists_[i], one.at(kLists[i]).at(0));
    offsets_.Next(TokenBytes(tokenizer, token.token));
  }
}

std::string LogprobsText::Finish() {
  if (chat_) return fmt::format("{{\"content\":[{}],\"refusal\":null}}", lists_[0]);
  std::string text;
  for (size_t i = 0; i < kLists.size(); ++i) {
    text += fmt::format("{}\"{}\":[", i == 0 ? "{" : ",", kLists[i]);
    text += std::exchange(lists_[i], {});
    text += ']';
  }
  return text + "}";
}

std::string AnswerText(const json::object& answer, std::span<const std::string> logprobs) {
  std::string choices = "[";
  for (const std::string& one : logprobs) {
    if (choices.size() > 1) choices += ',';
    const size_t index = &one - logprobs.data();
    choices += TextWith(answer.at("choices").at(index).as_object(), "logprobs",
                        one.empty() ? "null" : one);
  }
  return TextWith(answer, "choices", choices + "]");
}

std::string TokenBytes(const text::Tokenizer& tokenizer, int32_t token) {
  const Result<std::string> bytes = tokenizer.Decode({&token, 1});
  return bytes.ok() ? *bytes : std::string();
}

json::object UsageJson(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

json::object AnswerJson(const AnswerHead& head, const text::Tokenizer& tokenizer,
                        const std::vector<ChoicePart>& choices, bool whole) {
  json::array list;
  for (const ChoicePart& part : choices) {
    list.push_back(ChoiceJson(head, tokenizer, part, whole));
  }
  const char* const kind =
      !head.chat ? "text_completion" : (whole ? "chat.completion" : "chat.completion.chunk");
  return {{"id", head.id},       {"object", kind},    {"created", head.created},
          {"model", head.model}, {"seed", head.seed}, {"choices", std::move(list)}};
}

json::object SnapshotJson(const EngineSnapshot& s) {
  json::array layers, nodes, experts;
  for (const LayerWait& wait : s.layer_waits) {
    layers.push_back(
        {{"layer_id", wait.layer_id}, {"exposed_ns", wait.exposed_ns}, {"waits", wait.waits}});
  }
  for (const ExpertLoad::Layer& layer : s.expert_load.layers()) {
    experts.push_back({{"layer_id", layer.layer_id},
                       {"tokens", json::array(layer.tokens.begin(), layer.tokens.end())}});
  }
  for (const client::SourceStats::Node& node : s.rows.nodes) {
    nodes.push_back({{"name", node.name},
                     {"rows_fetched", node.rows_fetched},
                     {"bytes_fetched", node.bytes_fetched},
                     {"requests", node.requests},
                     {"up", node.status.ok()},
                     {"message", node.status.message()}});
  }
  return {{"running", s.running},
          {"waiting", s.waiting},
          {"waiting_max", s.waiting_max},
          {"pages_used", s.pages_used},
          {"pages_cached", s.pages_cached},
          {"pages_total", s.pages_total},
          {"prompt_tokens", s.prompt_tokens},
          {"generated_tokens", s.generated_tokens},
          {"prefix_queried_tokens", s.prefix_queried_tokens},
          {"prefix_hit_tokens", s.prefix_hit_tokens},
          {"preemptions", s.preemptions},
          {"steps", s.steps},
          {"step_ns", s.step_ns},
          {"exposed_wait_ns", s.exposed_wait_ns},
          {"degraded_positions", s.degraded_positions},
          {"rows_asked", s.rows.rows_asked},
          {"rows_distinct", s.rows.rows_distinct},
          {"rows_cached", s.rows.rows_cached},
          {"prefill_tokens", s.prefill_tokens},
          {"prefill_ns", s.prefill_ns},
          {"decode_tokens", s.decode_tokens},
          {"decode_ns", s.decode_ns},
          {"late_tokens", s.late_tokens},
          {"layer_waits", std::move(layers)},
          {"expert_load", std::move(experts)},
          {"rank_exchange_ns", s.rank_exchange_ns},
          {"rank_exchange_bytes", s.rank_exchange_bytes},
          {"nodes", std::move(nodes)},
          {"epoch", s.rows.epoch},
          {"failovers", s.rows.failovers},
          {"hedges_sent", s.rows.hedges_sent},
          {"hedges_won", s.rows.hedges_won},
          {"reconnects", s.rows.reconnects},
          {"draining", s.draining},
          {"memory", {{"ok", s.memory.ok()}, {"message", s.memory.message()}}}};
}

std::string ServerSentEvent(const json::object& data) {
  return "data: " + json::serialize(data) + "\n\n";
}

}  // namespace engram::compute
