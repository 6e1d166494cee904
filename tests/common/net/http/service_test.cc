// Bodies, streamed answers, clients that leave or do not read, as a raw socket sees them.
#include "common/net/http/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <vector>

#include "tests/common/net/raw_socket.h"

namespace engram::net {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class HttpServiceTest : public testing::Test {
 protected:
  HttpServiceTest() {
    HttpLimits limits;
    limits.connections = 4;
    limits.body_bytes = 1000;
    limits.unsent_bytes = 100'000;
    auto started = HttpService::Start(
        "127.0.0.1", 0, limits,
        [this](HttpRequest request, std::shared_ptr<HttpReply> reply) {
          handler_(std::move(request), std::move(reply));
        },
        PlainRefusal);
    CHECK(started.ok()) << started.status().ToString();
    service_ = std::move(*started);
  }
  std::string Ask(std::string_view request) {
    RawSocket socket(service_->port());
    socket.Send(request);
    return socket.Read();
  }
  // Runs on the service's thread and waits for it.
  void On(const std::function<void()>& task) {
    std::promise<void> done;
    service_->Post([&] {
      task();
      done.set_value();
    });
    done.get_future().wait();
  }

  HttpService::Handler handler_ = [](const HttpRequest& request,
                                     const std::shared_ptr<HttpReply>& reply) {
    reply->Send({200,
                 "text/plain",
                 request.method + " " + request.path + " [" + request.body + "]",
                 {{"X-Extra", "1"}}});
  };
  std::unique_ptr<HttpService> service_;
};

TEST_F(HttpServiceTest, BodiesArriveWholeWhateverTheirFraming) {
  const std::string answer = Ask("POST /a?b=c HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_THAT(answer, StartsWith("HTTP/1.0 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("X-Extra: 1\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 15\r\n"));
  EXPECT_THAT(answer, HasSubstr("POST /a [hello]"));
  EXPECT_THAT(Ask("POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                  "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
              HasSubstr("POST /a [hello]"));
}

TEST_F(HttpServiceTest, AnExpectantClientIsToldToContinue) {
  RawSocket socket(service_->port());
  socket.Send("POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_THAT(socket.Read("100 Continue\r\n\r\n"), StartsWith("HTTP/1.1 100"));
  socket.Send("ok");
  EXPECT_THAT(socket.Read("[ok]"), HasSubstr(" 200 "));
}

TEST_F(HttpServiceTest, PipelinedRequestsAreAnsweredInOrder) {
  const std::string one = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string last = "GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  const std::string answer = Ask(one + last);
  EXPECT_LT(answer.find("GET /1"), answer.find("GET /2"));
  EXPECT_NE(answer.find("GET /2"), std::string::npos);
}

TEST_F(HttpServiceTest, AHeadHasNoBody) {
  const std::string answer = Ask("HEAD /a HTTP/1.0\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("Content-Length: 10\r\n"));
  EXPECT_TRUE(answer.ends_with("\r\n\r\n"));
}

TEST_F(HttpServiceTest, TooLargeBodiesAreRefusedBeforeTheyAreRead) {
  EXPECT_THAT(Ask("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\nx"),
              HasSubstr(" 413 "));
}

TEST_F(HttpServiceTest, AStreamArrivesInChunksAndTheConnectionIsKept) {
  handler_ = [](const HttpRequest&, const std::shared_ptr<HttpReply>& reply) {
    reply->StartStream(200, "text/event-stream", {});
    EXPECT_TRUE(reply->Write("one"));
    EXPECT_TRUE(reply->Write(""));
    EXPECT_TRUE(reply->Write("two2"));
    reply->Finish();
  };
  RawSocket socket(service_->port());
  for (int i = 0; i < 2; ++i) {
    socket.Send("GET /s HTTP/1.1\r\nHost: x\r\n\r\n");
    const std::string answer = socket.Read("\r\n0\r\n\r\n");
    EXPECT_THAT(answer, HasSubstr("Transfer-Encoding: chunked"));
    EXPECT_THAT(answer, HasSubstr("\r\n\r\n3\r\none\r\n4\r\ntwo2\r\n0\r\n\r\n"));
  }
  EXPECT_TRUE(Ask("GET /s HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nonetwo2"));
}

TEST_F(HttpServiceTest, AClientThatLeavesIsNoticedWhileItsAnswerIsMade) {
  std::promise<std::shared_ptr<HttpReply>> asked;
  std::promise<void> gone;
  handler_ = [&](const HttpRequest&, std::shared_ptr<HttpReply> reply) {
    reply->OnGone([&] { gone.set_value(); });
    asked.set_value(std::move(reply));
  };
  std::shared_ptr<HttpReply> reply;
  {
    RawSocket socket(service_->port());
    socket.Send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    reply = asked.get_future().get();
  }
  gone.get_future().wait();
  On([&] {
    EXPECT_TRUE(reply->gone());
    EXPECT_FALSE(reply->Write("x"));
    reply->Send({});
    reply.reset();
  });
}

TEST_F(HttpServiceTest, AClientThatDoesNotReadIsCutOff) {
  std::promise<void> gone;
  std::shared_ptr<HttpReply> held;
  handler_ = [&](const HttpRequest&, const std::shared_ptr<HttpReply>& reply) {
    reply->StartStream(200, "text/plain", {});
    reply->OnGone([&] { gone.set_value(); });
    held = reply;
  };
  RawSocket socket(service_->port());
  socket.Send("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n");
  socket.Read("\r\n\r\n");
  const std::string block(50'000, 'x');
  bool reading = true;
  for (int i = 0; reading && i < 10'000; ++i) On([&] { reading = held->Write(block); });
  EXPECT_FALSE(reading);
  gone.get_future().wait();
  On([&] { held.reset(); });
}

TEST_F(HttpServiceTest, AnAnswerForgottenIsA500AndAStreamForgottenACutConnection) {
  handler_ = [](const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
    if (request.path == "/stream") reply->StartStream(200, "text/plain", {});
  };
  EXPECT_THAT(Ask("GET /a HTTP/1.0\r\n\r\n"), HasSubstr(" 500 "));
  const std::string cut = Ask("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(cut.find("\r\n0\r\n"), std::string::npos);
}

TEST_F(HttpServiceTest, WhenAllConnectionsAreBusyANewOneIsToldSo) {
  std::vector<std::shared_ptr<HttpReply>> held;
  handler_ = [&](const HttpRequest&, std::shared_ptr<HttpReply> reply) {
    held.push_back(std::move(reply));
  };
  std::vector<std::unique_ptr<RawSocket>> sockets;
  for (int i = 0; i < 4; ++i) {
    sockets.push_back(std::make_unique<RawSocket>(service_->port()));
    sockets.back()->Send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  size_t count = 0;
  while (count < 4) On([&] { count = held.size(); });
  EXPECT_THAT(Ask("GET /a HTTP/1.0\r\n\r\n"), HasSubstr(" 503 "));
  On([&] {
    for (const auto& reply : held) reply->Send({200, "text/plain", "done"});
    held.clear();
  });
  EXPECT_THAT(sockets[3]->Read("done"), HasSubstr(" 200 "));
}

TEST_F(HttpServiceTest, TasksRunInOrderAndLater) {
  std::vector<int> order;
  std::promise<void> later;
  service_->PostAfter(5, [&] {
    order.push_back(3);
    later.set_value();
  });
  service_->PostAfter(3'600'000, [] { FAIL(); });
  service_->Post([&] { order.push_back(1); });
  service_->Post([&] { order.push_back(2); });
  later.get_future().wait();
  EXPECT_THAT(order, testing::ElementsAre(1, 2, 3));
}

}  // namespace
}  // namespace engram::net
