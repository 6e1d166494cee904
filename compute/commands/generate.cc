#include "compute/commands/generate.h"

#include <fmt/format.h>

#include <cstdio>

#include "common/text/tokenizer.h"
#include "compute/commands/file.h"
#include "compute/commands/report.h"
#include "compute/session/session.h"

namespace engram::compute {
namespace {

Result<std::string> TextOf(const text::Tokenizer& tokenizer, const Completion& completion) {
  std::vector<int32_t> tokens = completion.ids();
  if (completion.finish.reason == FinishReason::kStop) tokens.pop_back();
  ASSIGN_OR_RETURN(const std::string bytes, tokenizer.Decode(tokens));
  return text::ReplaceInvalidUtf8(bytes);
}

}  // namespace

Status RunGenerate(const ComputeConfig& config, const GenerateOptions& options,
                   parallel::Collective& ranks) {
  CompletionRequest request;
  std::string prompt = options.prompt;
  if (!options.prompt_file.empty()) {
    ASSIGN_OR_RETURN(prompt, ReadWholeFile(options.prompt_file));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Open(config, ranks));
  ASSIGN_OR_RETURN(const text::Tokenizer tokenizer,
                   text::Tokenizer::Load(config.model_path + "/tokenizer.json"));
  ASSIGN_OR_RETURN(request.prompt, tokenizer.Encode(prompt));
  if (request.prompt.empty())
    return InvalidArgument("the prompt is empty: give --prompt or --prompt-file text");
  request.tokens_max = options.tokens_max;
  request.ignore_eos = options.ignore_eos;
  request.sampling.temperature = options.temperature;
  request.sampling.seed = options.seed;

  ASSIGN_OR_RETURN(const Completion completion,
                   RunCompletion(session->completions(), std::move(request)));
  ASSIGN_OR_RETURN(const std::string text, TextOf(tokenizer, completion));
  const EngineSnapshot snapshot = session->completions().Snapshot();
  fmt::print("{}\n", text);
  std::fputs(TextReport(snapshot).c_str(),
             stderr);  // remarks: where they cannot go does not matter
  if (options.json_file.empty()) return OkStatus();
  ASSIGN_OR_RETURN(ReplacingFile file, ReplacingFile::Create(options.json_file));
  RETURN_IF_ERROR(file.Write(JsonReport(snapshot, completion, text)));
  return file.Commit();
}

}  // namespace engram::compute
