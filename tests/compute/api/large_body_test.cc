// Large bodies are read beside the HTTP thread. A gate in the server's worker stands for one that
// takes long: what comes behind it waits until the test opens it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "tests/compute/api/api_server_fixture.h"

namespace engram::compute {
namespace {

using net::RawSocket;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr size_t kWaitingMax = 2;

// White space that makes a body large and means nothing.
std::string Large(const std::string& body) {
  return body + std::string(BodyReader::kInlineBytesMax, ' ');
}

class LargeBody : public ApiServerFixture {
 protected:
  LargeBody() {
    engine_.reason = FinishReason::kLength;
    auto worker = std::make_unique<Worker>(kWaitingMax);
    worker_ = worker.get();
    CloseGate();
    Start({}, std::move(worker));
  }
  ~LargeBody() override {
    OpenGate();
    server_.reset();
  }
  void CloseGate() {
    opened_ = std::promise<void>();
    open_ = false;
    std::promise<void> begun;
    CHECK(worker_->TryPost([&, opened = opened_.get_future().share()] {
      begun.set_value();
      opened.wait();
    }));
    begun.get_future().wait();
  }
  void OpenGate() {
    if (!std::exchange(open_, true)) opened_.set_value();
  }
  void AwaitWaiting(size_t count) const {
    while (worker_->waiting() != count) std::this_thread::yield();
  }
  // Until everything posted so far has run.
  void AwaitWorker() {
    std::promise<void> reached;
    while (!worker_->TryPost([&] { reached.set_value(); })) std::this_thread::yield();
    reached.get_future().wait();
  }
  std::unique_ptr<RawSocket> SendLarge(const std::string& body) {
    auto socket = std::make_unique<RawSocket>(server_->port());
    socket->Send(RequestText("POST", "/v1/completions", Large(body)));
    return socket;
  }

  Worker* worker_ = nullptr;
  std::promise<void> opened_;
  bool open_ = false;
};

TEST_F(LargeBody, OthersAreAnsweredWhileOneIsRead) {
  const auto large = SendLarge(R"({"prompt":"the cat"})");
  AwaitWaiting(1);
  EXPECT_THAT(Ask("GET", "/health"), HasSubstr(" 200 "));
  engine_.script = Ids("on the mat");
  EXPECT_THAT(Complete(R"({"prompt":"on","stream":true})"), HasSubstr("[DONE]"));
  EXPECT_EQ(engine_.Await(1).request.prompt, Ids("on")) << "before the one that came first";
  OpenGate();
  EXPECT_THAT(large->Read(), AllOf(HasSubstr(" 200 OK"), HasSubstr("on the mat")));
  EXPECT_EQ(engine_.Await(2).request.prompt, Ids("the cat"));
}

TEST_F(LargeBody, BeyondTheQueueTheyAre429) {
  engine_.script = Ids("end");
  std::vector<std::unique_ptr<RawSocket>> waiting;
  for (size_t i = 1; i <= kWaitingMax; ++i) {
    waiting.push_back(SendLarge(R"({"prompt":"x"})"));
    AwaitWaiting(i);
  }
  EXPECT_THAT(SendLarge(R"({"prompt":"y"})")->Read(),
              AllOf(HasSubstr(" 429 "), HasSubstr("Retry-After: 1\r\n"), HasSubstr("queue_full")));
  EXPECT_THAT(Complete(R"({"prompt":"small"})"), HasSubstr(" 200 "));
  OpenGate();
  for (const auto& socket : waiting) EXPECT_THAT(socket->Read(), HasSubstr(" 200 "));
  EXPECT_THAT(SendLarge(R"({"prompt":"y"})")->Read(), HasSubstr(" 200 "));
}

TEST_F(LargeBody, AClientThatLeavesMeanwhileHasNothingSubmitted) {
  engine_.script = Ids("end");
  auto large = SendLarge(R"({"prompt":"left"})");
  AwaitWaiting(1);
  large.reset();
  while (Ask("GET", "/metrics").find("engram_compute_clients_gone_total 1") == std::string::npos) {
  }
  OpenGate();
  AwaitWorker();
  EXPECT_THAT(Complete(R"({"prompt":"stayed"})"), HasSubstr(" 200 "));
  EXPECT_EQ(engine_.Await(1).request.prompt, Ids("stayed"));
}

TEST_F(LargeBody, ClosingTheServerDropsThoseThatWait) {
  const auto large = SendLarge(R"({"prompt":"x"})");
  AwaitWaiting(1);
  std::promise<void> dropped;
  const auto notice = [&](int* value) {
    delete value;
    dropped.set_value();
  };
  ASSERT_TRUE(worker_->TryPost([held = std::shared_ptr<int>(new int(1), notice)] { FAIL(); }));
  std::future<void> closing = std::async(std::launch::async, [&] { server_.reset(); });
  EXPECT_EQ(large->Read(), "");
  dropped.get_future().wait();
  OpenGate();
  closing.get();
  EXPECT_EQ(*engine_.Submit({}, {}), 1u) << "nothing was submitted before";
}

TEST_F(LargeBody, TheyAreAnsweredAsSmallOnesAre) {
  OpenGate();
  const auto same = [&](const std::string& path, const std::string& body) {
    const std::string answer = Ask("POST", path, body);
    EXPECT_EQ(Ask("POST", path, Large(body)), answer);
    return answer;
  };
  EXPECT_THAT(same("/tokenize", R"({"prompt":"the cat"})"), HasSubstr("\"count\""));
  EXPECT_THAT(same("/detokenize", R"({"tokens":[5,6]})"), HasSubstr(" 200 "));
  EXPECT_THAT(same("/v1/completions", R"({"prompt":7})"), HasSubstr(" 400 "));
  EXPECT_THAT(same("/v1/chat/completions", R"({"messages":[]})"), HasSubstr(" 400 "));
  EXPECT_THAT(Complete(std::string(20'000, '{')), HasSubstr("invalid_json"));
  RawSocket socket(server_->port());
  engine_.script = Ids("end");
  socket.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
              std::to_string(Large(R"({"prompt":"one"})").size()) + "\r\n\r\n" +
              Large(R"({"prompt":"one"})") + RequestText("GET", "/health", ""));
  EXPECT_THAT(socket.Read(), AllOf(HasSubstr("end"), HasSubstr("alive"))) << "one after the other";
}

TEST_F(LargeBody, PromptsThatCannotFitAre413BeforeTheyAreEncoded) {
  OpenGate();
  const std::string text(6000, ' ');  // the longest token has 5 bytes
  const std::string message = "at least 1200 tokens";
  const std::string quoted = "\"" + text + "\"";
  EXPECT_THAT(Complete("{\"prompt\":" + quoted + "}"),
              AllOf(HasSubstr(" 413 "), HasSubstr(message), HasSubstr("\"param\":\"prompt\""),
                    HasSubstr("context_length_exceeded")));
  EXPECT_THAT(Complete("{\"prompt\":[\"x\"," + quoted + "]}"), HasSubstr(message));
  EXPECT_THAT(Chat(R"({"messages":[{"role":"user","content":)" + quoted + "}]}"),
              AllOf(HasSubstr(" 413 "), HasSubstr("\"param\":\"messages\"")));
  EXPECT_THAT(Complete("{\"n\":2,\"prompt\":" + quoted + "}"), HasSubstr(" 400 "));
  EXPECT_THAT(Ask("POST", "/tokenize", "{\"prompt\":" + quoted + "}"),
              AllOf(HasSubstr(" 200 "), HasSubstr("\"count\":"), Not(HasSubstr("error"))));
}

}  // namespace
}  // namespace engram::compute
