// Messages to the prompt that a chat model was trained on. Named, built-in formats: a template
// language of its own would be a second project.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/text/tokenizer.h"

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

// The text behind which the assistant's next message begins, in parts: the template's own markers
// are tokens, what a message says is text even where it spells one. Of kRaw everything may be
// tokens: the markers are the client's. `messages` is not empty. Without `turn_begins` the text
// ends with the last message.
std::vector<text::TextPart> RenderChat(ChatTemplate chat, const std::vector<ChatMessage>& messages,
                                       bool turn_begins = true);

// The template's markers that the vocabulary does not have as one token each: they would be spelt
// out in tokens of text, which says nothing to a model.
std::vector<std::string> MissingMarkers(ChatTemplate chat, const text::Tokenizer& tokenizer);

}  // namespace engram::compute
