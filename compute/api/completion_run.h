// One completion request from its acceptance to its last byte: every prompt a request of the
// engine's, their updates gathered or streamed. On the HTTP service's thread, where it is owned by
// the connection it answers.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/net/http/service.h"
#include "compute/api/answer_json.h"
#include "compute/api/api_metrics.h"
#include "compute/api/choice.h"

namespace engram::compute {

// How other threads reach the HTTP service's: tasks are dropped once it is closed.
class Mailbox {
 public:
  void Open(net::HttpService* service);
  void Close();
  void Post(std::function<void()> task);
  void PostAfter(int64_t milliseconds, std::function<void()> task);

 private:
  std::mutex mutex_;
  net::HttpService* service_ = nullptr;
};

// What runs share; outlives them.
struct RunContext {
  CompletionEngine* engine = nullptr;
  const text::Tokenizer* tokenizer = nullptr;
  std::shared_ptr<Mailbox> mailbox;
  ApiMetrics* metrics = nullptr;
  const Clock* clock = &Clock::Real();
  int64_t keep_alive_ms = 10'000;  // between comments in a silent stream
  int64_t request_timeout_s = 600;
};

class CompletionRun : public std::enable_shared_from_this<CompletionRun> {
 public:
  // `arrived`: when the request did.
  CompletionRun(const RunContext& context, AnswerHead head, ApiRequest request, TimePoint arrived,
                std::shared_ptr<net::HttpReply> reply);
  // Submits everything, or answers with the error of the first prompt that was not accepted.
  void Start();

 private:
  struct Part : Choice {
    using Choice::Choice;
    TextOffsets offsets;  // of what was streamed
    TimePoint last_token;
    bool started = false;  // streamed anything yet
  };

  bool SubmitAll();
  void Take(size_t index, Update update, TimePoint at);
  void CountTokens(Part& choice, size_t tokens, TimePoint at);
  void CountEnd(const Part& choice, TimePoint at);
  void CancelUnfinished(const char* reason);  // and ends them
  int64_t DegradedPositions() const;
  void SayDegraded(json::object& answer) const;  // when there are any
  void SayDegraded(net::HttpResponse& response) const;
  void StreamPart(size_t index, std::string text, const std::vector<SampledToken>& tokens);
  void Complete();
  void Fail(const Status& status);
  void ClientGone();
  void Tick();  // now and then: keeps a silent stream alive, ends what the engine forgot

  const RunContext& context_;
  const AnswerHead head_;
  const ApiRequest request_;
  std::shared_ptr<net::HttpReply> reply_;
  const TimePoint arrived_;
  std::vector<Part> choices_;
  size_t unfinished_ = 0;
  Usage usage_;
  bool over_ = false;
  bool streaming_ = false;  // the answer has begun
  bool wrote_ = false;      // since the last keep-alive
};

}  // namespace engram::compute
