#include "compute/api/chat_template.h"

#include <fmt/format.h>

namespace engram::compute {
namespace {

constexpr std::string_view kBegin = "<｜begin▁of▁sentence｜>";
constexpr std::string_view kEnd = "<｜end▁of▁sentence｜>";
constexpr std::string_view kUser = "<｜User｜>";
constexpr std::string_view kAssistant = "<｜Assistant｜>";

std::vector<text::TextPart> RenderDeepseek(const std::vector<ChatMessage>& messages,
                                           bool turn_begins) {
  std::vector<text::TextPart> prompt;
  const auto mark = [&](std::string_view marker) { prompt.push_back({std::string(marker), true}); };
  const auto say = [&](const std::string& content) { prompt.push_back({content, false}); };
  mark(kBegin);
  // All system texts come first, wherever they stand.
  std::string system;
  for (const ChatMessage& message : messages) {
    if (message.role != "system") continue;
    if (!system.empty()) system += "\n\n";
    system += message.content;
  }
  say(system);
  for (const ChatMessage& message : messages) {
    if (message.role == "user") {
      mark(kUser);
      say(message.content);
    } else if (message.role == "assistant") {
      mark(kAssistant);
      say(message.content);
      mark(kEnd);
    }
  }
  if (turn_begins) mark(kAssistant);
  return prompt;
}

}  // namespace

Result<ChatTemplate> ChatTemplateOf(std::string_view name) {
  if (name == "deepseek") return ChatTemplate::kDeepseek;
  if (name == "raw") return ChatTemplate::kRaw;
  return InvalidArgument(
      fmt::format("api.chat_template is \"{}\"; it must be deepseek or raw", name));
}

std::vector<std::string> MissingMarkers(ChatTemplate chat, const text::Tokenizer& tokenizer) {
  std::vector<std::string> missing;
  if (chat == ChatTemplate::kRaw) return missing;
  for (const std::string_view marker : {kBegin, kEnd, kUser, kAssistant}) {
    const auto ids = tokenizer.Encode(marker);
    if (!ids.ok() || ids->size() != 1) missing.emplace_back(marker);
  }
  return missing;
}

std::vector<text::TextPart> RenderChat(ChatTemplate chat, const std::vector<ChatMessage>& messages,
                                       bool turn_begins) {
  if (chat == ChatTemplate::kDeepseek) return RenderDeepseek(messages, turn_begins);
  text::TextPart prompt{"", true};
  for (const ChatMessage& message : messages) prompt.text += message.content;
  return {std::move(prompt)};
}

}  // namespace engram::compute
