// What a Hugging Face model folder says beside config.json, its tensors and its vocabulary.
#pragma once

#include <string>
#include <string_view>

#include "common/base/status.h"
#include "compute/model/model_config.h"

namespace engram::compute {

// Where answers end: "eos_token_id" of generation_config.json has the last word, as in Hugging
// Face; without one config.json's stays, and without either it is the "eos_token" of
// tokenizer_config.json. INVALID_ARGUMENT names the file and the value.
Status ReadEosIds(const std::string& directory, ModelConfig& config);

// What the folder's files ask for and this engine leaves out, each with what follows, in one line
// for the log; empty when there is nothing. A file that cannot be read is one of them.
// `chat_template` is the setting of that name.
std::string LeftOutOfFolder(const std::string& directory, std::string_view chat_template);

}  // namespace engram::compute
