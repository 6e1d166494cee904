// Messages to the prompt that a chat model was trained on. Named, built-in formats: a template
// language of its own would be a second project.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace engram::compute {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

enum class ChatTemplate {
  kDeepseek,  // DeepSeek-V3's markers around system, user and assistant texts
  kRaw,       // the contents one after the other: the client has rendered them
};
// INVALID_ARGUMENT names the choices.
Result<ChatTemplate> ChatTemplateOf(std::string_view name);

// The text behind which the assistant's next message begins. `messages` is not empty.
std::string RenderChat(ChatTemplate chat, const std::vector<ChatMessage>& messages);

}  // namespace engram::compute
