#include "compute/api/chat_template.h"

#include <fmt/format.h>

namespace engram::compute {
namespace {

constexpr std::string_view kBegin = "<｜begin▁of▁sentence｜>";
constexpr std::string_view kEnd = "<｜end▁of▁sentence｜>";
constexpr std::string_view kUser = "<｜User｜>";
constexpr std::string_view kAssistant = "<｜Assistant｜>";

std::string RenderDeepseek(const std::vector<ChatMessage>& messages) {
  // All system texts come first, wherever they stand.
  std::string prompt(kBegin);
  std::string system;
  for (const ChatMessage& message : messages) {
    if (message.role != "system") continue;
    if (!system.empty()) system += "\n\n";
    system += message.content;
  }
  prompt += system;
  for (const ChatMessage& message : messages) {
    if (message.role == "user") {
      prompt.append(kUser).append(message.content);
    } else if (message.role == "assistant") {
      prompt.append(kAssistant).append(message.content).append(kEnd);
    }
  }
  return prompt.append(kAssistant);
}

}  // namespace

Result<ChatTemplate> ChatTemplateOf(std::string_view name) {
  if (name == "deepseek") return ChatTemplate::kDeepseek;
  if (name == "raw") return ChatTemplate::kRaw;
  return InvalidArgument(
      fmt::format("api.chat_template is \"{}\"; it must be deepseek or raw", name));
}

std::string RenderChat(ChatTemplate chat, const std::vector<ChatMessage>& messages) {
  if (chat == ChatTemplate::kDeepseek) return RenderDeepseek(messages);
  std::string prompt;
  for (const ChatMessage& message : messages) prompt += message.content;
  return prompt;
}

}  // namespace engram::compute
