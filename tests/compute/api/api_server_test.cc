// The API as a client sees it, over an engine that does what the test says.
#include "compute/api/api_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/compute/api/api_server_fixture.h"

namespace engram::compute {
namespace {

using net::RawSocket;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class ApiServerTest : public ApiServerFixture {
 protected:
  ApiServerTest() { Start({}); }

  uint64_t asked_ = 0;  // requests the engine had, by the tests that count them
};

TEST_F(ApiServerTest, ACompletionHasTextUsageAndFinishReason) {
  engine_.script = Ids("the cat");
  engine_.reason = FinishReason::kLength;
  const std::string answer = Complete(R"({"model":"tiny","prompt":"on","max_tokens":7})");
  EXPECT_THAT(answer, HasSubstr(" 200 OK"));
  const json::object body = JsonOf(answer);
  EXPECT_EQ(body.at("object"), "text_completion");
  EXPECT_EQ(body.at("choices").at(0).at("text"), "the cat");
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason"), "length");
  EXPECT_EQ(body.at("usage").at("completion_tokens").to_number<size_t>(), engine_.script.size());
  const auto asked = engine_.Await(1).request;
  EXPECT_EQ(asked.prompt, Ids("on"));
  EXPECT_EQ(asked.tokens_max, 7);
}

TEST_F(ApiServerTest, EndOfTextIsCountedNotShown) {
  engine_.script = Ids("the mat");
  engine_.script.push_back(0);
  const json::object body = JsonOf(Chat(R"({"messages":[{"role":"user","content":"hi"}]})"));
  EXPECT_EQ(body.at("choices").at(0).at("message").at("content"), "the mat");
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_EQ(body.at("usage").at("completion_tokens").to_number<size_t>(), engine_.script.size());
}

TEST_F(ApiServerTest, EveryFieldReachesTheEngine) {
  engine_.script = {0};
  Complete(R"({"prompt":[5,6,7],"max_tokens":3,"temperature":0.5,"top_p":0.9,"top_k":4,
    "min_p":0.1,"seed":42,"presence_penalty":1,"frequency_penalty":-1,"logprobs":2,
    "logit_bias":{"9":-100},"ignore_eos":true,"user":"me","n":1})");
  const CompletionRequest asked = engine_.Await(1).request;
  EXPECT_EQ(asked.prompt, (std::vector<int32_t>{5, 6, 7}));
  EXPECT_TRUE(asked.ignore_eos);
  const SamplingOptions& sampling = asked.sampling;
  EXPECT_EQ(sampling.temperature, 0.5);
  EXPECT_EQ(sampling.top_p, 0.9);
  EXPECT_EQ(sampling.top_k, 4);
  EXPECT_EQ(sampling.min_p, 0.1);
  EXPECT_EQ(sampling.seed, 42u);
  EXPECT_EQ(sampling.presence_penalty, 1);
  EXPECT_EQ(sampling.frequency_penalty, -1);
  EXPECT_EQ(sampling.top_logprobs, 2);
  EXPECT_EQ(sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{9, -100.0f}}));
}

TEST_F(ApiServerTest, SeveralPromptsAreSeveralChoicesInOrder) {
  engine_.script = Ids("end");
  engine_.reason = FinishReason::kLength;
  const json::object body = JsonOf(Complete(R"({"prompt":["on","the",  "mat"]})"));
  ASSERT_EQ(body.at("choices").as_array().size(), 3u);
  EXPECT_EQ(body.at("choices").at(2).at("index"), 2);
  EXPECT_EQ(engine_.Await(3).request.prompt, Ids("mat"));
  EXPECT_THAT(Complete(R"({"prompt":["a","b","c","d","e"]})"), HasSubstr("at most 4"));
}

TEST_F(ApiServerTest, AStreamBeginsWithTheRoleAndEndsWithDone) {
  RawSocket socket(server_->port());
  const std::string body = R"({"stream":true,"stream_options":{"include_usage":true},)"
                           R"("messages":[{"role":"user","content":"x"}]})";
  socket.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  const auto asked = engine_.Await(1);
  EXPECT_THAT(socket.Read("\"role\":\"assistant\""), HasSubstr("text/event-stream"));
  FakeEngine::Tell(asked, Ids("the"));
  EXPECT_THAT(socket.Read("\"content\":\"the\""), HasSubstr("chat.completion.chunk"));
  FakeEngine::Tell(asked, Ids(" cat"), FinishReason::kLength);
  const std::string end = socket.Read("\r\n0\r\n\r\n");
  EXPECT_LT(end.find("\"finish_reason\":\"length\""), end.find("\"usage\""));
  EXPECT_LT(end.find("\"choices\":[],\"usage\""), end.find("data: [DONE]"));
}

TEST_F(ApiServerTest, AStopStringCancelsTheRestAndIsNotShown) {
  RawSocket socket(server_->port());
  const std::string body = R"({"prompt":"x","stop":[" end","zz"],"max_tokens":50})";
  socket.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  const auto asked = engine_.Await(1);
  FakeEngine::Tell(asked, Ids("the mat end of"));
  engine_.AwaitCancel(1);
  FakeEngine::Tell(asked, {}, FinishReason::kAbort);
  const json::object answer = JsonOf(socket.Read());
  EXPECT_EQ(answer.at("choices").at(0).at("text"), "the mat");
  EXPECT_EQ(answer.at("choices").at(0).at("finish_reason"), "stop");
}

TEST_F(ApiServerTest, AClientThatLeavesCancelsItsRequest) {
  const std::string body = R"({"prompt":["x","y"],"max_tokens":50})";
  {
    RawSocket socket(server_->port());
    socket.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n\r\n" + body);
    engine_.Await(2);
  }
  engine_.AwaitCancel(1);
  engine_.AwaitCancel(2);
  const std::string metrics = Ask("GET", "/metrics");
  EXPECT_THAT(metrics, HasSubstr("engram_compute_clients_gone_total 1"));
  EXPECT_THAT(metrics, HasSubstr("requests_finished_total{reason=\"abort\"} 2"));
  EXPECT_THAT(metrics, HasSubstr("engram_compute_request_prompt_tokens_count 2"));
  EXPECT_THAT(metrics, HasSubstr("engram_compute_request_prompt_tokens_sum 2"));
}

TEST_F(ApiServerTest, ErrorsOfTheEngineKeepTheirMeaning) {
  const auto refused = [&](Status status) {
    engine_.refusal = std::move(status);
    return Complete(R"({"prompt":"x"})");
  };
  const std::string full = refused(ResourceExhausted("256 requests are waiting"));
  EXPECT_THAT(full, HasSubstr(" 429 "));
  EXPECT_THAT(full, HasSubstr("Retry-After: 1\r\n"));
  EXPECT_THAT(full, HasSubstr("\"code\":\"queue_full\""));
  EXPECT_THAT(refused(Unavailable("the engine is shutting down")), HasSubstr(" 503 "));
  engine_.refusal = OkStatus();
  engine_.script = {5};
  engine_.reason = FinishReason::kError;
  engine_.failure = DataLoss("memory node m1: 3 rows missing");
  EXPECT_THAT(Complete(R"({"prompt":"x"})"), HasSubstr(" 503 "));
  engine_.failure = DeadlineExceeded("too slow");
  EXPECT_THAT(Complete(R"({"prompt":"x"})"), HasSubstr(" 504 "));
  engine_.failure = InternalError("NaN");
  EXPECT_THAT(Complete(R"({"prompt":"x"})"), HasSubstr(" 500 "));
  EXPECT_THAT(Complete(R"({"prompt":"x","stream":true})"),
              HasSubstr("data: {\"error\":{\"message\":\"NaN\""));
}

TEST_F(ApiServerTest, DegradedAnswersSaySo) {
  engine_.script = Ids("end");
  engine_.degraded = 3;
  const std::string answer = Complete(R"({"prompt":"x"})");
  EXPECT_THAT(answer, HasSubstr("X-Engram-Degraded-Positions: 3\r\n"));
  EXPECT_EQ(JsonOf(answer).at("engram").at("degraded_positions"), 3);
  EXPECT_THAT(Complete(R"({"prompt":"x","stream":true})"),
              HasSubstr("\"engram\":{\"degraded_positions\":3}"));
}

// What a stream's chunks say in choices[0].logprobs, one list after the other.
json::array StreamedLogprobs(const std::string& stream, const char* list) {
  static constexpr std::string_view kData = "data: ";
  json::array all;
  for (size_t at = stream.find(kData); at != std::string::npos; at = stream.find(kData, at)) {
    at += kData.size();
    const auto chunk = io::ParseJson(stream.substr(at, stream.find('\n', at) - at), "chunk");
    if (!chunk.ok() || chunk->at("choices").as_array().empty()) continue;
    const json::value& logprobs = chunk->at("choices").at(0).at("logprobs");
    if (!logprobs.is_object()) continue;
    for (const json::value& value : logprobs.at(list).as_array()) all.push_back(value);
  }
  return all;
}

TEST_F(ApiServerTest, TextOffsetsCountCharactersThatSpanTokens) {
  engine_.reason = FinishReason::kLength;
  for (const char byte : std::string_view("a\xe2\x82\xac"
                                          "b")) {
    engine_.script.push_back(Ids(std::string(1, byte))[0]);
  }
  const json::array expected = {0, 1, 1, 1, 2};
  const json::object whole = JsonOf(Complete(R"({"prompt":"x","logprobs":0})"));
  EXPECT_EQ(whole.at("choices").at(0).at("text"), "a€b");
  EXPECT_EQ(whole.at("choices").at(0).at("logprobs").at("text_offset"), expected);
  engine_.script.clear();
  RawSocket socket(server_->port());
  socket.Send(
      RequestText("POST", "/v1/completions", R"({"prompt":"x","logprobs":0,"stream":true})"));
  const auto asked = engine_.Await(2);
  for (const char byte : std::string_view("a\xe2\x82\xac"
                                          "b")) {
    FakeEngine::Tell(asked, Ids(std::string(1, byte)));
  }
  FakeEngine::Tell(asked, {}, FinishReason::kLength);
  EXPECT_EQ(StreamedLogprobs(socket.Read(), "text_offset"), expected);
}

TEST_F(ApiServerTest, LikelyTokensOfEqualTextDoNotHideEachOther) {
  const int32_t half = Ids("\xe2")[0], other_half = Ids("\xc3")[0], e = Ids("e")[0];
  const int32_t unknown = tokenizer_.vocab_size(), unknown_too = unknown + 1;  // without a text
  Update update;
  update.tokens.push_back({other_half, -2, {{half, -1}, {other_half, -2}, {e, -3}}});
  update.tokens.push_back({unknown_too, -2, {{unknown, -1}, {unknown_too, -2}}});
  update.finish = Finish();
  const auto answer = [&](const std::string& path, const std::string& body) {
    RawSocket socket(server_->port());
    socket.Send(RequestText("POST", path, body));
    FakeEngine::Tell(engine_.Await(++asked_), update);
    return JsonOf(socket.Read()).at("choices").at(0).at("logprobs");
  };
  const json::value text = answer("/v1/completions", R"({"prompt":"x","logprobs":3})");
  const json::array names = {"bytes:\\xc3", ""};
  EXPECT_EQ(text.at("tokens"), names);
  const json::object halves{{"bytes:\\xe2", -1.0}, {"bytes:\\xc3", -2.0}, {"e", -3.0}};
  EXPECT_EQ(text.at("top_logprobs").at(0), halves);
  const json::object unknowns{{"token_id:" + std::to_string(unknown), -1.0}, {"", -2.0}};
  EXPECT_EQ(text.at("top_logprobs").at(1), unknowns) << "the token chosen has its own name";
  const json::value chat =
      answer("/v1/chat/completions",
             R"({"messages":[{"role":"user","content":"x"}],"logprobs":true,"top_logprobs":3})");
  const json::array& top = chat.at("content").at(0).at("top_logprobs").as_array();
  ASSERT_EQ(top.size(), 3u);
  EXPECT_EQ(top[0].at("bytes"), json::array{0xe2});
  EXPECT_EQ(top[1].at("bytes"), json::array{0xc3});
}

// Field, value, and a part of the message; all 400.
struct BadField {
  const char* fields;
  const char* param;
};

TEST_F(ApiServerTest, WrongFieldsAreNamed) {
  const BadField bad[] = {
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_tokens":"7")", "max_tokens"},
      {R"("max_tokens":1.5)", "max_tokens"},
      {R"("temperature":-1)", "temperature"},
      {R"("temperature":"hot")", "temperature"},
      {R"("temperature":1e999)", ""},
      {R"("top_p":0)", "top_p"},
      {R"("top_p":1.1)", "top_p"},
      {R"("top_k":-2)", "top_k"},
      {R"("min_p":2)", "min_p"},
      {R"("seed":"x")", "seed"},
      {R"("n":2)", "n"},
      {R"("best_of":3)", "best_of"},
      {R"("stop":5)", "stop"},
      {R"("stop":[""])", "stop"},
      {R"("stop":["a","b","c","d","e"])", "stop"},
      {R"("stream":"yes")", "stream"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("logprobs":21)", "logprobs"},
      {R"("logit_bias":{"x":1})", "logit_bias"},
      {R"("logit_bias":{"1":101})", "logit_bias"},
      {R"("logit_bias":{"999999":1})", "logit_bias"},
      {R"("presence_penalty":3)", "presence_penalty"},
      {R"("frequency_penalty":-2.5)", "frequency_penalty"},
      {R"("echo":true)", "echo"},
      {R"("suffix":"s")", "suffix"},
      {R"("tools":[{"type":"function"}])", "tools"},
      {R"("response_format":{"type":"json_object"})", "response_format"},
      {R"("model":7)", "model"},
  };
  for (const BadField& field : bad) {
    const std::string answer = Complete(std::string(R"({"prompt":"x",)") + field.fields + "}");
    EXPECT_THAT(answer, HasSubstr(" 400 ")) << field.fields;
    if (*field.param != 0) {
      EXPECT_THAT(answer, HasSubstr(std::string("\"param\":\"") + field.param + "\""))
          << field.fields << answer;
    }
  }
  engine_.script = {0};
  EXPECT_THAT(Complete(R"({"prompt":"x","n":1,"best_of":1,"echo":false,"tools":[],"stop":null})"),
              HasSubstr(" 200 "));
  EXPECT_THAT(Complete(R"({"prompt":"x","somebody_elses_field":{"a":[1]}})"), HasSubstr(" 400 "));
}

TEST_F(ApiServerTest, WrongPromptsAndMessagesAreNamed) {
  for (const char* body : {R"({})", R"({"prompt":""})", R"({"prompt":[]})", R"({"prompt":{}})",
                           R"({"prompt":[[]]})", R"({"prompt":[1,"a"]})", R"({"prompt":[-1]})",
                           R"({"prompt":[99999]})", R"({"prompt":[1.5]})", R"({"prompt":7})"}) {
    EXPECT_THAT(Complete(body), HasSubstr("\"param\":\"prompt\"")) << body;
  }
  for (const char* body :
       {R"({})", R"({"messages":[]})", R"({"messages":"hi"})", R"({"messages":[7]})",
        R"({"messages":[{"role":"user"}]})", R"({"messages":[{"role":"robot","content":"x"}]})",
        R"({"messages":[{"role":"user","content":7}]})",
        R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":"u"}]}]})"}) {
    EXPECT_THAT(Chat(body), HasSubstr("\"param\":\"messages\"")) << body;
  }
  engine_.script = {0};
  Chat(R"({"messages":[{"role":"user","content":[)"
       R"({"type":"text","text":"the "},{"type":"text","text":"cat"}]}]})");
  EXPECT_THAT(*tokenizer_.Decode(engine_.Await(1).request.prompt), HasSubstr("the cat"));
}

TEST_F(ApiServerTest, WhatIsNotJsonOrNotUtf8IsRefused) {
  for (const std::string body : {"", "{", "[1]", "null", "{\"prompt\":\"\xff\"}",
                                 "{\"prompt\":\"a\"} x", "{\"prompt\":\"\\ud800\"}"}) {
    EXPECT_THAT(Complete(body), HasSubstr(" 400 ")) << body;
  }
  EXPECT_THAT(Complete("{\"prompt\":" + std::string(5000, '[') + "}"), HasSubstr(" 400 "));
  EXPECT_THAT(Complete(std::string(200'000, ' ')), HasSubstr(" 413 "));
  EXPECT_THAT(Ask("GET", "/health"), HasSubstr(" 200 "));
}

TEST_F(ApiServerTest, PromptsThatDoNotFitAre413AndUnknownModels404) {
  std::string ids = "1";
  for (int i = 0; i < 1000; ++i) ids += ",1";
  const std::string answer = Complete("{\"prompt\":[" + ids + "]}");
  EXPECT_THAT(answer, HasSubstr(" 413 "));
  EXPECT_THAT(answer, HasSubstr("context_length_exceeded"));
  EXPECT_THAT(Complete(R"({"prompt":"x","max_tokens":1000})"), HasSubstr(" 413 "));
  const std::string unknown = Complete(R"({"prompt":"x","model":"gpt"})");
  EXPECT_THAT(unknown, HasSubstr(" 404 "));
  EXPECT_THAT(unknown, HasSubstr("model_not_found"));
}

TEST_F(ApiServerTest, RoutesAndMethods) {
  EXPECT_THAT(Ask("GET", "/health"), HasSubstr("alive"));
  EXPECT_THAT(Ask("GET", "/ready"), HasSubstr(" 200 "));
  EXPECT_THAT(Ask("GET", "/"), HasSubstr("Content-Security-Policy"));
  EXPECT_THAT(Ask("GET", "/version"), HasSubstr("\"version\""));
  EXPECT_THAT(Ask("GET", "/v1/models"), HasSubstr("\"id\":\"tiny\""));
  EXPECT_THAT(Ask("GET", "/v1/models/tiny"), HasSubstr("\"object\":\"model\""));
  EXPECT_THAT(Ask("GET", "/v1/models/other"), HasSubstr(" 404 "));
  EXPECT_THAT(Ask("GET", "/nowhere"), HasSubstr(" 404 "));
  EXPECT_THAT(Ask("DELETE", "/health"), HasSubstr("Allow: GET"));
  EXPECT_THAT(Ask("GET", "/v1/completions"), HasSubstr(" 405 "));
  engine_.script = {3};
  EXPECT_THAT(Ask("GET", "/health/generate"), HasSubstr("generating"));
  const json::object ids = JsonOf(Ask("POST", "/tokenize", R"({"prompt":"the cat"})"));
  EXPECT_EQ(ids.at("count").to_number<size_t>(), Ids("the cat").size());
  EXPECT_THAT(Ask("POST", "/detokenize", "{\"tokens\":" + json::serialize(ids.at("tokens")) + "}"),
              HasSubstr("\"prompt\":\"the cat\""));
}

TEST_F(ApiServerTest, BodiesThatAreNotJsonByTheirTypeAre415) {
  engine_.script = Ids("the cat");
  const std::string body = R"({"prompt":"on"})";
  const auto ask = [&](const std::string& type) {
    return Ask("POST", "/v1/completions", body, "Content-Type: " + type + "\r\n");
  };
  EXPECT_THAT(ask("text/xml"), AllOf(HasSubstr(" 415 "), HasSubstr("unsupported_media_type")));
  EXPECT_THAT(ask("multipart/form-data; boundary=x"), HasSubstr(" 415 "));
  EXPECT_THAT(ask("application/json; charset=utf-8"), HasSubstr(" 200 "));
  EXPECT_THAT(ask("application/x-www-form-urlencoded"), HasSubstr(" 200 ")) << "curl -d";
  EXPECT_THAT(ask("Application/JSON"), HasSubstr(" 200 ")) << "types have no case";
}

TEST_F(ApiServerTest, ABodyThatIsSaidToBeCompressedIs415) {
  engine_.script = Ids("the cat");
  const auto ask = [&](const std::string& coding) {
    return Ask("POST", "/v1/completions", R"({"prompt":"on"})",
               "Content-Encoding: " + coding + "\r\n");
  };
  EXPECT_THAT(ask("gzip"), AllOf(HasSubstr(" 415 "), HasSubstr("Content-Encoding: gzip")));
  EXPECT_THAT(ask("identity, br"), HasSubstr(" 415 "));
  EXPECT_THAT(ask("Identity"), HasSubstr(" 200 "));
}

TEST_F(ApiServerTest, AnAnswerSaysTheSeedItCanBeRepeatedWith) {
  engine_.script = Ids("the cat");
  EXPECT_EQ(JsonOf(Complete(R"({"prompt":"on","seed":7})")).at("seed").to_number<int64_t>(), 7);
  const auto drawn = JsonOf(Complete(R"({"prompt":"on"})")).at("seed").to_number<int64_t>();
  EXPECT_EQ(static_cast<uint64_t>(drawn), engine_.Await(2).request.sampling.seed);
  EXPECT_LT(drawn, int64_t{1} << 53) << "every client reads it exactly";
}

TEST_F(ApiServerTest, MetricsHavePhasesStepsLookupsAndTiers) {
  engine_.script = Ids("the cat");
  Complete(R"({"prompt":"on"})");
  const std::string text = Ask("GET", "/metrics");
  for (const char* name :
       {"engram_compute_request_queue_seconds_count 1", "engram_compute_request_prefill_seconds",
        "engram_compute_request_decode_seconds", "engram_compute_step_tokens_bucket",
        "engram_compute_engram_fetch_latency_seconds_bucket",
        "engram_compute_engram_rows_total{tier=\"in_process\"}",
        "engram_compute_engram_rows_total{tier=\"client_cache\"}"}) {
    EXPECT_THAT(text, HasSubstr(name));
  }
}

TEST_F(ApiServerTest, ProbesGoBeforeTheQueueAndAreFew) {
  engine_.script.clear();
  std::vector<std::unique_ptr<RawSocket>> probes;
  for (uint64_t i = 1; i <= 4; ++i) {
    probes.push_back(std::make_unique<RawSocket>(server_->port()));
    probes.back()->Send("GET /health/generate HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_TRUE(engine_.Await(i).request.is_probe);
  }
  EXPECT_THAT(Ask("GET", "/health/generate"), HasSubstr(" 429 "));
}

TEST_F(ApiServerTest, AnEngineThatHangsIsNoticedByTheProbe) {
  ApiOptions options;
  options.probe_timeout_ms = 10;
  Start(options);
  const std::string answer = Ask("GET", "/health/generate");
  EXPECT_THAT(answer, HasSubstr(" 503 "));
  EXPECT_THAT(answer, HasSubstr("the engine made no token in 10 ms"));
  engine_.AwaitCancel(1);
  FakeEngine::Tell(engine_.Await(1), Ids("x"), FinishReason::kLength);  // late: not answered twice
  EXPECT_THAT(Ask("GET", "/health"), HasSubstr(" 200 "));
}

TEST_F(ApiServerTest, NotReadyWhileDrainingOrWithoutMemory) {
  engine_.memory = Unavailable("memory node m1 is gone");
  EXPECT_THAT(Ask("GET", "/ready"), HasSubstr("memory node m1 is gone"));
  engine_.memory = OkStatus();
  engine_.StartDraining();
  EXPECT_THAT(Ask("GET", "/ready"), HasSubstr(" 503 "));
  EXPECT_THAT(Ask("GET", "/health"), HasSubstr(" 200 "));
}

TEST_F(ApiServerTest, ReadyNamesNodesWhoseRowsComeFromOtherOwners) {
  engine_.nodes.resize(2);
  engine_.nodes[1].name = "m1";
  engine_.nodes[1].status = Unavailable("memory node m1 is gone");
  const std::string answer = Ask("GET", "/ready");
  EXPECT_THAT(answer, HasSubstr(" 200 "));
  EXPECT_THAT(answer, HasSubstr(R"("degraded":["memory node m1 is gone"])"));
  EXPECT_THAT(answer, HasSubstr(R"("nodes_down":["m1"])"));
  engine_.nodes[1].status = OkStatus();
  EXPECT_THAT(Ask("GET", "/ready"), Not(HasSubstr("degraded")));
}

TEST_F(ApiServerTest, AKeyIsAskedForWhereItMatters) {
  ApiOptions options;
  options.key = "secret";
  Start(options);
  engine_.script = {0};
  EXPECT_THAT(Complete(R"({"prompt":"x"})"), HasSubstr(" 401 "));
  EXPECT_THAT(Ask("POST", "/v1/completions", R"({"prompt":"x"})", "Authorization: Bearer nope\r\n"),
              HasSubstr(" 401 "));
  EXPECT_THAT(
      Ask("POST", "/v1/completions", R"({"prompt":"x"})", "Authorization: Bearer secret\r\n"),
      HasSubstr(" 200 "));
  EXPECT_THAT(
      Ask("POST", "/v1/completions", R"({"prompt":"x"})", "Authorization: bearer secret\r\n"),
      HasSubstr(" 200 "))
      << "a scheme's name has no case";
  EXPECT_THAT(
      Ask("POST", "/v1/completions", R"({"prompt":"x"})", "Authorization: Bearer Secret\r\n"),
      HasSubstr(" 401 "));
  EXPECT_THAT(Ask("GET", "/health"), HasSubstr(" 200 "));
  EXPECT_THAT(Ask("GET", "/debug/state"), HasSubstr(" 401 "));
}

TEST_F(ApiServerTest, ABodyIsNotReadWithoutTheKeyNorWhereNoneIsTaken) {
  ApiOptions options;
  options.key = "secret";
  Start(options);
  const auto begin = [&](const std::string& line) {
    net::RawSocket socket(server_->port());
    socket.Send(line + " HTTP/1.1\r\nHost: x\r\nContent-Length: 99000\r\n\r\n");
    return socket.Read();  // although no byte of the body comes
  };
  EXPECT_THAT(begin("POST /v1/completions"), HasSubstr(" 401 "));
  EXPECT_THAT(begin("POST /tokenize"), HasSubstr(" 401 "));
  EXPECT_THAT(begin("GET /health"), HasSubstr(" 413 "));
  EXPECT_THAT(begin("POST /metrics"), HasSubstr(" 405 "));
  EXPECT_THAT(begin("POST /nothing"), HasSubstr(" 404 "));
}

// Its visitor's browser sends such bodies without asking the server first.
TEST_F(ApiServerTest, WithoutAKeyAForeignPageMayOnlySendWhatBrowsersAskAboutFirst) {
  const std::string body = R"({"prompt":"abc"})";
  const auto ask = [&](const std::string& headers) {
    return Ask("POST", "/tokenize", body, headers);
  };
  for (const std::string origin :
       {"https://evil.example", "null", "http://x:81", "http://x.evil"}) {
    const std::string from = "Origin: " + origin + "\r\n";
    EXPECT_THAT(ask(from), HasSubstr(" 415 ")) << origin;
    EXPECT_THAT(ask(from + "Content-Type: text/plain\r\n"), HasSubstr(" 415 ")) << origin;
    EXPECT_THAT(ask(from + "Content-Type: text/plain; application/json\r\n"), HasSubstr(" 415 "));
    EXPECT_THAT(ask(from + "Content-Type: application/x-www-form-urlencoded\r\n"),
                HasSubstr(" 415 "));
    EXPECT_THAT(ask(from + "Content-Type: Application/JSON ; charset=utf-8\r\n"),
                HasSubstr(" 200 "));
  }
  EXPECT_THAT(ask("Origin: http://X\r\nContent-Type: text/plain\r\n"), HasSubstr(" 200 "))
      << "our own page";
  EXPECT_THAT(ask("Content-Type: text/plain\r\n"), HasSubstr(" 200 ")) << "no browser";
}

TEST_F(ApiServerTest, AModelWithASlashInItsNameIsFoundEscapedOrNot) {
  model_name_ = "org/tiny é";
  Start({});
  for (const std::string path :
       {"org%2Ftiny%20%C3%A9", "org/tiny%20%c3%a9", "%6Frg/tiny%20\xc3\xa9"}) {
    const std::string answer = Ask("GET", "/v1/models/" + path);
    EXPECT_THAT(answer, HasSubstr(" 200 ")) << path;
    EXPECT_EQ(JsonOf(answer)["id"], "org/tiny é");
  }
  EXPECT_THAT(Ask("GET", "/v1/models/org%252Ftiny"), HasSubstr(" 404 "));
  EXPECT_THAT(Ask("GET", "/v1/models/%ff"), HasSubstr(" 404 "));
  EXPECT_FALSE(JsonOf(Ask("GET", "/%ff")).empty()) << "the answer is JSON all the same";
  EXPECT_THAT(Ask("GET", "/v1/models/%2"), HasSubstr(" 400 "));
}

TEST_F(ApiServerTest, ASilentStreamIsKeptAlive) {
  ApiOptions options;
  options.keep_alive_ms = 10;
  Start(options);
  RawSocket socket(server_->port());
  const std::string body = R"({"prompt":"x","stream":true})";
  socket.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  const auto asked = engine_.Await(1);
  EXPECT_THAT(socket.Read(": still computing"), HasSubstr("event-stream"));
  FakeEngine::Tell(asked, Ids("end"), FinishReason::kLength);
  EXPECT_THAT(socket.Read("[DONE]"), HasSubstr("end"));
}

TEST_F(ApiServerTest, AnEngineThatForgetsARequestIsNoticed) {
  ApiOptions options;
  options.keep_alive_ms = 10;
  options.request_timeout_s = -10;  // over, and the engine's grace too
  Start(options);
  EXPECT_THAT(Complete(R"({"prompt":"x"})"), HasSubstr(" 504 "));
  engine_.AwaitCancel(1);
  EXPECT_THAT(Complete(R"({"prompt":"x","stream":true})"), HasSubstr("deadline_exceeded"));
}

TEST_F(ApiServerTest, TheEngineMayGoOnWhenTheServerIsClosed) {
  auto socket = std::make_unique<RawSocket>(server_->port());
  const std::string body = R"({"prompt":"x","stream":true})";
  socket->Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
               std::to_string(body.size()) + "\r\n\r\n" + body);
  const auto asked = engine_.Await(1);
  server_.reset();
  FakeEngine::Tell(asked, Ids("end"), FinishReason::kLength);
  EXPECT_THAT(socket->Read(), Not(HasSubstr("[DONE]")));
}

}  // namespace
}  // namespace engram::compute
