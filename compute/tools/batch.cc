#include "compute/tools/batch.h"

#include <fmt/format.h>

#include <future>
#include <sstream>

#include "compute/api/answer_json.h"
#include "compute/api/api_request.h"
#include "compute/api/text_stream.h"
#include "compute/engine/run_completion.h"
#include "compute/tools/file.h"
#include "compute/tools/session.h"

namespace engram::compute {
namespace {

Result<std::vector<ApiRequest>> ParseLines(const std::string& content, const std::string& input,
                                           const ApiModel& model) {
  std::vector<ApiRequest> requests;
  std::istringstream lines(content);
  for (std::string line; std::getline(lines, line);) {
    const std::string where = fmt::format("{} line {}", input, requests.size() + 1);
    auto parsed = ParseCompletion(line, model);
    if (const auto* error = std::get_if<ApiError>(&parsed)) {
      return InvalidArgument(fmt::format("{}: {}", where, error->message));
    }
    auto& request = std::get<ApiRequest>(parsed);
    if (request.prompts.size() != 1 || request.stream) {
      return InvalidArgument(where + ": one prompt a line, and no stream");
    }
    request.completion.prompt = std::move(request.prompts[0]);
    requests.push_back(std::move(request));
  }
  return requests;
}

std::string AnswerLine(const ApiRequest& request, Completion completion,
                       const text::Tokenizer& tokenizer, const std::string& model) {
  std::vector<SampledToken>& tokens = completion.tokens;
  TextStream stream(tokenizer, request.stop, request.show_stop);
  std::string text;
  const bool hides_last = request.HidesLast(completion.finish.reason, tokens);
  const size_t taken = stream.AppendAll(tokens, hides_last, text);
  text += stream.Finish();
  tokens.resize(taken);
  ChoicePart part;
  part.text = std::move(text);
  part.logprobs = request.logprobs ? &tokens : nullptr;
  part.finish_reason = stream.stopped() ? "stop" : FinishReasonName(completion.finish.reason);
  json::object answer = AnswerJson({"", model, 0, false, request.seed}, tokenizer, {part}, true);
  answer.erase("id");
  answer.erase("created");  // the same input gives the same file
  if (request.completion.sampling.temperature == 0) answer.erase("seed");  // nothing was drawn
  answer["usage"] =
      UsageJson({completion.finish.prompt_tokens, static_cast<int64_t>(tokens.size()), 0});
  if (completion.finish.degraded_positions > 0) {
    answer["engram"] = {{"degraded_positions", completion.finish.degraded_positions}};
  }
  return json::serialize(answer) + "\n";
}

}  // namespace

Status RunBatch(const ComputeConfig& config, const std::string& input, const std::string& output,
                parallel::Collective& ranks) {
  ASSIGN_OR_RETURN(const std::string content, ReadWholeFile(input));
  ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Open(config, ranks));
  ASSIGN_OR_RETURN(const text::Tokenizer tokenizer,
                   text::Tokenizer::Load(config.model_path + "/tokenizer.json"));
  CompletionEngine& engine = session->completions();
  const std::string name =
      config.model_name.empty() ? client::FolderName(config.model_path) : config.model_name;
  const ApiModel model{name,
                       &tokenizer,
                       ChatTemplate::kRaw,
                       session->model().vocab_size,
                       engine.positions_max(),
                       1,
                       config.api.allow_unknown_fields,
                       {}};
  ASSIGN_OR_RETURN(const std::vector<ApiRequest> requests, ParseLines(content, input, model));
  ASSIGN_OR_RETURN(ReplacingFile out, ReplacingFile::Create(output));
  // As many as the queue takes are given to the engine at a time.
  const auto together = static_cast<size_t>(config.queue_max);
  for (size_t first = 0; first < requests.size(); first += together) {
    const size_t count = std::min(together, requests.size() - first);
    std::vector<CompletionRequest> part;
    for (size_t i = 0; i < count; ++i) part.push_back(requests[first + i].completion);
    std::vector<Result<Completion>> done = RunCompletions(engine, std::move(part));
    for (size_t i = 0; i < count; ++i) {
      if (!done[i].ok()) {
        return done[i].status().WithContext(fmt::format("{} line {}", input, first + i + 1));
      }
      RETURN_IF_ERROR(
          out.Write(AnswerLine(requests[first + i], std::move(*done[i]), tokenizer, name)));
    }
  }
  return out.Commit();
}

}  // namespace engram::compute
