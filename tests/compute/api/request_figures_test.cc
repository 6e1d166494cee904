// A request's figures (positions without rows, cached tokens, phases) do not depend on how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/compute/api/api_server_fixture.h"

namespace engram::compute {
namespace {

using net::RawSocket;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

struct Ending {
  const char* name;
  const char* tokens;                  // the text generated, " end" is the stop string
  std::optional<FinishReason> finish;  // none: the server ends it itself
  Status status;
  const char* said;  // in the answer
};

const Ending kEndings[] = {
    {"eos", "the cat", FinishReason::kStop, OkStatus(), "\"finish_reason\":\"stop\""},
    {"length", "the cat", FinishReason::kLength, OkStatus(), "\"finish_reason\":\"length\""},
    {"stop string", "the cat end", std::nullopt, OkStatus(), "\"finish_reason\":\"stop\""},
    {"stop string with the last token", "the cat end", FinishReason::kLength, OkStatus(),
     "\"finish_reason\":\"stop\""},
    {"drain", "the cat", FinishReason::kAbort, OkStatus(), "\"finish_reason\":\"abort\""},
    {"deadline", "the cat", FinishReason::kError, DeadlineExceeded("late"), "deadline_exceeded"},
    {"error", "the cat", FinishReason::kError, DataLoss("memory node m1"), "\"unavailable\""},
};

class RequestFiguresTest : public ApiServerFixture {
 protected:
  RequestFiguresTest() { Start({}); }

  static Update UpdateOf(std::vector<int32_t> tokens, int64_t cached, int64_t degraded,
                         std::optional<FinishReason> end, Status status = OkStatus()) {
    Update update;
    for (const int32_t token : tokens) update.tokens.push_back({token, -1, {}});
    update.cached_tokens = cached;
    update.degraded_positions = degraded;
    if (!end) return update;
    update.finish = Finish();
    update.finish->reason = *end;
    update.finish->status = std::move(status);
    update.finish->queue_time = Nanos(1'000'000);
    update.finish->prefill_time = Nanos(1'000'000);
    update.finish->decode_time = Nanos(1'000'000);
    return update;
  }
  int64_t Count(const std::string& name) {
    const std::string text = Ask("GET", "/metrics");
    const size_t at = text.find("\nengram_compute_" + name + " ");
    return at == std::string::npos ? 0 : std::stoll(text.substr(text.find(' ', at) + 1));
  }
  void ExpectPhases(int64_t requests) {
    EXPECT_EQ(Count("request_queue_seconds_count"), requests);
    EXPECT_EQ(Count("request_prefill_seconds_count"), requests);
    EXPECT_EQ(Count("request_decode_seconds_count"), requests);
    EXPECT_EQ(Count("request_seconds_count"), requests);
    EXPECT_EQ(Count("request_prompt_tokens_count"), requests);
    EXPECT_EQ(Count("request_completion_tokens_count"), requests);
  }
  // Every prompt is told the same, one token at a time: 3 positions without rows and 2 cached
  // tokens up to its last one.
  std::string AnswerOf(const Ending& ending, size_t prompts, bool stream) {
    std::string body = R"({"stop":" end","prompt":["x")";
    for (size_t i = 1; i < prompts; ++i) body += R"(,"x")";
    body += R"(],"stream":)";
    body += stream ? R"(true,"stream_options":{"include_usage":true}})" : "false}";
    RawSocket socket(server_->port());
    socket.Send(RequestText("POST", "/v1/completions", body));
    engine_.Await(asked_ + prompts);
    for (size_t i = 0; i < prompts; ++i) {
      const uint64_t id = ++asked_;
      const auto asked = engine_.Await(id);
      std::vector<int32_t> tokens = Ids(ending.tokens);
      const int32_t last = tokens.back();
      tokens.pop_back();
      FakeEngine::Tell(asked, UpdateOf(tokens, 2, 1, std::nullopt));
      FakeEngine::Tell(asked, UpdateOf({last}, 2, 3, ending.finish, ending.status));
      if (ending.finish) continue;
      engine_.AwaitCancel(id);  // what was computed beyond the stop string is not of the answer
      FakeEngine::Tell(asked, UpdateOf({}, 2, 7, FinishReason::kAbort));
    }
    return socket.Read();
  }

  uint64_t asked_ = 0;
};

TEST_F(RequestFiguresTest, EveryWayOfEndingHasThem) {
  int64_t requests = 0;
  for (const Ending& ending : kEndings) {
    for (const bool stream : {false, true}) {
      SCOPED_TRACE(std::string(ending.name) + (stream ? " streamed" : " plain"));
      const std::string answer = AnswerOf(ending, 1, stream);
      EXPECT_THAT(answer, HasSubstr(ending.said));
      EXPECT_THAT(answer, HasSubstr("\"engram\":{\"degraded_positions\":3}"));
      if (!stream) {
        EXPECT_THAT(answer, HasSubstr("X-Engram-Degraded-Positions: 3\r\n"));
      }
      if (ending.status.ok()) {
        EXPECT_THAT(answer, HasSubstr("\"cached_tokens\":2"));
      }
      ExpectPhases(++requests);
    }
  }
}

TEST_F(RequestFiguresTest, EveryWayOfEndingOfSeveralPromptsHasTheirSums) {
  int64_t requests = 0;
  for (const Ending& ending : kEndings) {
    if (!ending.status.ok()) continue;  // one of them ends all
    for (const bool stream : {false, true}) {
      SCOPED_TRACE(std::string(ending.name) + (stream ? " streamed" : " plain"));
      const std::string answer = AnswerOf(ending, 3, stream);
      EXPECT_THAT(answer, HasSubstr("\"engram\":{\"degraded_positions\":9}"));
      if (!stream) {
        EXPECT_THAT(answer, HasSubstr("X-Engram-Degraded-Positions: 9\r\n"));
      }
      EXPECT_THAT(answer, HasSubstr("\"cached_tokens\":6"));
      ExpectPhases(requests += 3);
    }
  }
}

TEST_F(RequestFiguresTest, OnePromptsErrorEndsTheOthersWhichAreCountedToo) {
  RawSocket socket(server_->port());
  socket.Send(RequestText("POST", "/v1/completions", R"({"prompt":["a","b"]})"));
  const auto second = engine_.Await(2);
  const auto first = engine_.Await(1);
  FakeEngine::Tell(first, UpdateOf(Ids("the"), 0, 4, std::nullopt));
  FakeEngine::Tell(second, UpdateOf({}, 0, 1, FinishReason::kError, DataLoss("memory node m1")));
  engine_.AwaitCancel(1);
  FakeEngine::Tell(first, UpdateOf({}, 0, 5, FinishReason::kAbort));
  EXPECT_THAT(socket.Read(), AllOf(HasSubstr(" 503 "), HasSubstr("memory node m1"),
                                   HasSubstr("X-Engram-Degraded-Positions: 5\r\n"),
                                   HasSubstr("\"engram\":{\"degraded_positions\":5}")));
  ExpectPhases(2);
  EXPECT_EQ(Count("requests_finished_total{reason=\"error\"}"), 2);
}

TEST_F(RequestFiguresTest, AClientThatLeavesIsCountedWithItsPhases) {
  {
    RawSocket socket(server_->port());
    socket.Send(RequestText("POST", "/v1/completions", R"({"prompt":["a","b"],"stream":true})"));
    FakeEngine::Tell(engine_.Await(1), UpdateOf(Ids("the"), 0, 0, std::nullopt));
    engine_.Await(2);
  }
  for (const uint64_t id : {1, 2}) {
    engine_.AwaitCancel(id);
    FakeEngine::Tell(engine_.Await(id), UpdateOf({}, 0, 0, FinishReason::kAbort));
  }
  ExpectPhases(2);
  EXPECT_EQ(Count("requests_finished_total{reason=\"abort\"}"), 2);
}

TEST_F(RequestFiguresTest, ARequestTheEngineRefusesTookNoTime) {
  engine_.refusal = ResourceExhausted("256 requests are waiting");
  Complete(R"({"prompt":["a","b"]})");
  ExpectPhases(0);
  EXPECT_EQ(Count("requests_finished_total{reason=\"error\"}"), 2);
}

TEST_F(RequestFiguresTest, WholeAnswersDoNotSayThatTheyAreDegraded) {
  engine_.script = Ids("the cat");
  EXPECT_THAT(Complete(R"({"prompt":"x","stream":true})"), Not(HasSubstr("degraded")));
  EXPECT_THAT(Complete(R"({"prompt":"x"})"), Not(HasSubstr("egraded")));
}

}  // namespace
}  // namespace engram::compute
