#include "compute/api/completion_run.h"

#include <fmt/format.h>

namespace engram::compute {
namespace {

// The engine ends overdue requests; one not ended by then means that it hangs.
constexpr auto kEngineGrace = std::chrono::seconds(5);

}  // namespace

void Mailbox::Open(net::HttpService* service) {
  const std::lock_guard lock(mutex_);
  service_ = service;
}

void Mailbox::Close() { Open(nullptr); }

void Mailbox::Post(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  if (service_ != nullptr) service_->Post(std::move(task));
}

void Mailbox::PostAfter(int64_t milliseconds, std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  if (service_ != nullptr) service_->PostAfter(milliseconds, std::move(task));
}

CompletionRun::CompletionRun(const RunContext& context, AnswerHead head, ApiRequest request,
                             TimePoint arrived, std::shared_ptr<net::HttpReply> reply)
    : context_(context),
      head_(std::move(head)),
      request_(std::move(request)),
      reply_(std::move(reply)),
      arrived_(arrived) {
  for (size_t i = 0; i < request_.prompts.size(); ++i) {
    choices_.emplace_back(*context.tokenizer, request_);
  }
  unfinished_ = choices_.size();
}

void CompletionRun::Start() {
  if (!SubmitAll()) return;
  reply_->OnGone([self = shared_from_this()] { self->ClientGone(); });
  if (over_) return;
  Tick();
  if (!request_.stream) return;
  context_.metrics->Answered(200);
  streaming_ = true;
  reply_->StartStream(200, "text/event-stream", {{"Cache-Control", "no-cache"}});
  if (head_.chat) {
    for (size_t i = 0; i < choices_.size(); ++i) StreamPart(i, "", {});
  }
}

bool CompletionRun::SubmitAll() {
  for (size_t i = 0; i < choices_.size(); ++i) {
    CompletionRequest completion = request_.completion;
    completion.prompt = request_.prompts[i];
    completion.deadline = arrived_ + std::chrono::seconds(context_.request_timeout_s);
    // On the engine's thread, perhaps after the server is gone: nothing of it is touched or kept
    // alive, only the moment is noted. The phases of a request are counted at the engine's end of
    // it, also where the run did not wait for that.
    const Result<uint64_t> id = context_.engine->Submit(
        std::move(completion), [run = weak_from_this(), i, mailbox = context_.mailbox,
                                clock = context_.clock, metrics = context_.metrics](Update update) {
          const TimePoint at = clock->Now();
          // std::function wants what it holds to be copyable.
          auto shared = std::make_shared<Update>(std::move(update));
          mailbox->Post([run, i, shared, at, metrics] {
            if (shared->finish) metrics->Phases(*shared->finish);
            if (const auto self = run.lock()) self->Take(i, std::move(*shared), at);
          });
        });
    if (!id.ok()) {
      Fail(id.status());
      return false;
    }
    choices_[i].engine_id = *id;
  }
  return true;
}

void CompletionRun::Take(size_t index, Update update, TimePoint at) {
  Part& choice = choices_[index];
  if (over_ || choice.ended()) return;
  if (update.finish && update.finish->reason == FinishReason::kError) {
    choice.cached_tokens = update.cached_tokens;
    choice.degraded_positions = update.degraded_positions;
    return Fail(update.finish->status);
  }
  CountTokens(choice, update.tokens.size(), at);
  std::string text = choice.Take(update);
  if (choice.ended()) {
    if (!update.finish) context_.engine->Cancel(choice.engine_id);
    CountEnd(choice, at);
  }
  if (request_.stream) {
    StreamPart(index, std::move(text), update.tokens);
  } else {
    choice.Gather(text, update.tokens);
  }
  if (!over_ && unfinished_ == 0) Complete();
}

void CompletionRun::CountTokens(Part& choice, size_t tokens, TimePoint at) {
  for (size_t i = 0; i < tokens; ++i) {
    if (choice.last_token == TimePoint()) {
      context_.metrics->FirstToken(at - arrived_);
    } else {
      context_.metrics->NextToken(at - choice.last_token);
    }
    choice.last_token = at;
  }
}

void CompletionRun::CountEnd(const Part& choice, TimePoint at) {
  const auto index = static_cast<size_t>(&choice - choices_.data());
  const auto prompt_tokens = static_cast<int64_t>(request_.prompts[index].size());
  --unfinished_;
  usage_.prompt_tokens += prompt_tokens;
  usage_.completion_tokens += choice.completion_tokens;
  usage_.cached_tokens += choice.cached_tokens;
  context_.metrics->Finished(choice.finish_reason, at - arrived_, prompt_tokens,
                             choice.completion_tokens);
}

void CompletionRun::StreamPart(size_t index, std::string text,
                               const std::vector<SampledToken>& tokens) {
  Part& choice = choices_[index];
  const bool first = head_.chat && !choice.started;
  const bool last = choice.ended();
  if (!first && !last && text.empty() && (!request_.logprobs || tokens.empty())) return;
  ChoicePart part{static_cast<int64_t>(index),
                  std::move(text),
                  request_.logprobs && !tokens.empty() ? &tokens : nullptr,
                  last ? std::optional<std::string_view>(choice.finish_reason) : std::nullopt,
                  first,
                  choice.offsets};
  if (request_.logprobs) {
    for (const SampledToken& token : tokens) {
      choice.offsets.Next(TokenBytes(*context_.tokenizer, token.token));
    }
  }
  choice.started = true;
  wrote_ = true;
  reply_->Write(ServerSentEvent(AnswerJson(head_, *context_.tokenizer, {part}, false)));
}

int64_t CompletionRun::DegradedPositions() const {
  int64_t positions = 0;
  for (const Part& choice : choices_) positions += choice.degraded_positions;
  return positions;
}

void CompletionRun::SayDegraded(json::object& answer) const {
  if (const int64_t positions = DegradedPositions(); positions > 0) {
    answer["engram"] = {{"degraded_positions", positions}};
  }
}

void CompletionRun::SayDegraded(net::HttpResponse& response) const {
  if (const int64_t positions = DegradedPositions(); positions > 0) {
    response.headers.emplace_back("X-Engram-Degraded-Positions", std::to_string(positions));
  }
}

void CompletionRun::Complete() {
  over_ = true;
  if (request_.stream) {
    if (request_.include_usage || DegradedPositions() > 0) {
      json::object last = AnswerJson(head_, *context_.tokenizer, {}, false);
      if (request_.include_usage) last["usage"] = UsageJson(usage_);
      SayDegraded(last);
      reply_->Write(ServerSentEvent(last));
    }
    reply_->Write("data: [DONE]\n\n");
    reply_->Finish();
  } else {
    std::vector<ChoicePart> parts;
    std::vector<std::string> logprobs;
    for (Part& choice : choices_) {
      parts.push_back(choice.Whole(static_cast<int64_t>(parts.size())));
      logprobs.push_back(choice.TakeLogprobs());
    }
    json::object answer = AnswerJson(head_, *context_.tokenizer, parts, true);
    answer["usage"] = UsageJson(usage_);
    SayDegraded(answer);
    net::HttpResponse response{200, "application/json", AnswerText(answer, logprobs) + "\n"};
    SayDegraded(response);
    context_.metrics->Answered(200);
    reply_->Send(std::move(response));
  }
  reply_.reset();
}

void CompletionRun::Fail(const Status& status) {
  if (over_) return;
  over_ = true;
  CancelUnfinished("error");
  const ApiError error = ErrorOf(status);
  json::object answer = ErrorJson(error);
  SayDegraded(answer);
  // A stream that has begun cannot change its status: the error is its last event.
  if (streaming_) {
    reply_->Write(ServerSentEvent(answer));
    reply_->Finish();
  } else {
    context_.metrics->Answered(error.status);
    net::HttpResponse response = ErrorResponse(error);
    response.body = json::serialize(answer) + "\n";
    SayDegraded(response);
    reply_->Send(std::move(response));
  }
  reply_.reset();
}

void CompletionRun::ClientGone() {
  if (over_) return;
  over_ = true;
  CancelUnfinished("abort");
  context_.metrics->ClientGone();
  reply_.reset();
}

void CompletionRun::CancelUnfinished(const char* reason) {
  const TimePoint now = context_.clock->Now();
  for (Part& choice : choices_) {
    if (choice.ended()) continue;
    if (choice.engine_id == 0) {
      context_.metrics->Ended(reason);  // not accepted: nothing of it took time
    } else {
      context_.engine->Cancel(choice.engine_id);
      choice.finish_reason = reason;
      CountEnd(choice, now);
    }
  }
}

void CompletionRun::Tick() {
  context_.mailbox->PostAfter(context_.keep_alive_ms, [run = weak_from_this()] {
    const auto self = run.lock();
    if (!self || self->over_) return;
    const Nanos allowed = std::chrono::seconds(self->context_.request_timeout_s) + kEngineGrace;
    if (self->context_.clock->Now() - self->arrived_ > allowed) {
      return self->Fail(DeadlineExceeded(fmt::format("the engine did not end the request in {} s",
                                                     self->context_.request_timeout_s)));
    }
    if (self->streaming_ && !self->wrote_) self->reply_->Write(": still computing\n\n");
    self->wrote_ = false;
    self->Tick();
  });
}

}  // namespace engram::compute
