#include "compute/commands/batch.h"

#include <fmt/format.h>

#include <array>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <sstream>

#include "compute/api/answer_json.h"
#include "compute/api/api_request.h"
#include "compute/api/choice.h"
#include "compute/commands/file.h"
#include "compute/session/session.h"

namespace engram::compute {
namespace {

Result<std::vector<ApiRequest>> ParseLines(const std::string& content, const std::string& input,
                                           const ApiModel& model) {
  std::vector<ApiRequest> requests;
  std::istringstream lines(content);
  for (std::string line; std::getline(lines, line);) {
    const std::string where = fmt::format("{} line {}", input, requests.size() + 1);
    ApiRequest request;
    if (const ApiError error = ParseCompletion(line, model, request); !error.ok()) {
      return InvalidArgument(fmt::format("{}: {}", where, error.message));
    }
    if (request.prompts.size() != 1 || request.stream) {
      return InvalidArgument(where + ": one prompt a line, and no stream");
    }
    request.completion.prompt = std::move(request.prompts[0]);
    requests.push_back(std::move(request));
  }
  return requests;
}

// Updates of several requests, handed from the engine's thread to the one that writes answers.
class UpdateQueue {
 public:
  void Put(size_t request, Update update) {
    const std::lock_guard lock(mutex_);
    updates_.emplace_back(request, std::move(update));
    some_.notify_one();
  }
  std::pair<size_t, Update> Take() {
    std::unique_lock lock(mutex_);
    some_.wait(lock, [&] { return !updates_.empty(); });
    std::pair<size_t, Update> first = std::move(updates_.front());
    updates_.pop_front();
    return first;
  }

 private:
  std::mutex mutex_;
  std::condition_variable some_;
  std::deque<std::pair<size_t, Update>> updates_;
};

// Runs the requests together; answers and the errors that they met are in order.
std::vector<Choice> RunTogether(CompletionEngine& engine, std::span<const ApiRequest> requests,
                                const text::Tokenizer& tokenizer, std::vector<Status>& errors) {
  std::vector<Choice> answers;
  answers.reserve(requests.size());
  const auto updates = std::make_shared<UpdateQueue>();
  size_t running = 0;
  for (const ApiRequest& request : requests) {
    Choice& answer = answers.emplace_back(tokenizer, request);
    const Result<uint64_t> id = engine.Submit(
        request.completion,
        [updates, i = answers.size() - 1](Update update) { updates->Put(i, std::move(update)); });
    errors.push_back(id.status());
    if (!id.ok()) continue;
    answer.engine_id = *id;
    ++running;
  }
  while (running > 0) {
    auto [i, update] = updates->Take();
    const bool last = update.finish.has_value();
    if (last) --running;
    Choice& answer = answers[i];
    if (answer.ended()) continue;
    if (last && update.finish->reason == FinishReason::kError) {
      errors[i] = update.finish->status;
    } else if (last && update.finish->reason == FinishReason::kAbort) {
      errors[i] = Cancelled("the request was aborted");
    } else {
      const std::string text = answer.Take(update);
      answer.Gather(text, update.tokens);
      if (answer.ended() && !last) engine.Cancel(answer.engine_id);
    }
  }
  return answers;
}

std::string AnswerLine(Choice& answer, const std::string& model) {
  const ApiRequest& request = answer.request;
  json::object line =
      AnswerJson({"", model, 0, false, request.seed}, answer.tokenizer, {answer.Whole(0)}, true);
  line.erase("id");
  line.erase("created");  // the same input gives the same file
  if (request.completion.sampling.temperature == 0) line.erase("seed");  // nothing was drawn
  // Which beginnings were cached depends on what ran beside it: it is left out.
  line["usage"] = UsageJson({static_cast<int64_t>(request.completion.prompt.size()),
                             answer.completion_tokens, /*cached_tokens=*/0});
  if (answer.degraded_positions > 0) {
    line["engram"] = {{"degraded_positions", answer.degraded_positions}};
  }
  return AnswerText(line, std::array{answer.TakeLogprobs()}) + "\n";
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
    std::vector<Status> errors;
    std::vector<Choice> answers =
        RunTogether(engine, std::span(requests).subspan(first, count), tokenizer, errors);
    for (size_t i = 0; i < count; ++i) {
      RETURN_IF_ERROR(errors[i].WithContext(fmt::format("{} line {}", input, first + i + 1)));
      RETURN_IF_ERROR(out.Write(AnswerLine(answers[i], name)));
    }
  }
  return out.Commit();
}

}  // namespace engram::compute
