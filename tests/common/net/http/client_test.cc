// The HTTP client against the HTTP service, and against servers that answer wrongly.
#include "common/net/http/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string_view>
#include <thread>

namespace engram::net {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr Nanos kTimeout = 20s;

std::string Address(uint16_t port) { return "127.0.0.1:" + std::to_string(port); }

struct HttpClient : testing::Test {
  HttpClient() {
    auto started = HttpService::Start(
        "127.0.0.1", 0, HttpLimits{},
        [this](const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
          if (request.path == "/streamed") {
            reply->StartStream(200, "text/plain", {});
            for (const char* part : {"one ", "two"}) reply->Write(part);
            return reply->Finish();
          }
          if (request.path == "/silent") {
            kept = reply;
            return;
          }
          reply->Send(
              {request.path == "/page" ? 200 : 404, "text/x",
               request.method + " " + request.path + "?" + request.query + " of " + request.host});
        },
        PlainRefusal);
    CHECK(started.ok()) << started.status().ToString();
    service = std::move(*started);
    address = Address(service->port());
  }
  std::shared_ptr<HttpReply> kept;
  std::unique_ptr<HttpService> service;
  std::string address;
};

TEST_F(HttpClient, HasTheAnswerOfAnyStatus) {
  const auto page = HttpGet(address, "/page?a=b", kTimeout);
  ASSERT_TRUE(page.ok()) << page.status().ToString();
  EXPECT_EQ(page->status, 200);
  EXPECT_EQ(page->content_type, "text/x");
  EXPECT_EQ(page->body, "GET /page?a=b of " + address);
  EXPECT_EQ(HttpGet(address, "/none", kTimeout)->status, 404);
  EXPECT_EQ(HttpGet(address, "/streamed", kTimeout)->body, "one two");
}

TEST_F(HttpClient, GivesUpAfterItsTimeout) {
  const Status late = HttpGet(address, "/silent", 20ms).status();
  EXPECT_EQ(late.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(late.message(),
            "GET http://" + address + "/silent: reading the answer: not done within 20 ms");
}

TEST_F(HttpClient, RefusesABodyBeyondItsLimit) {
  const std::string body = HttpGet(address, "/page", kTimeout)->body;
  EXPECT_EQ(HttpGet(address, "/page", kTimeout, body.size())->body, body);
  const Status large = HttpGet(address, "/page", kTimeout, body.size() - 1).status();
  EXPECT_EQ(large.code(), Code::kResourceExhausted);
  EXPECT_THAT(large.message(), HasSubstr("more than " + std::to_string(body.size() - 1)));
  EXPECT_EQ(HttpGet(address, "/streamed", kTimeout, 6).status().code(), Code::kResourceExhausted);
}

TEST_F(HttpClient, SaysWhatFailed) {
  service.reset();
  const Status refused = HttpGet(address, "/page", kTimeout).status();
  EXPECT_EQ(refused.code(), Code::kUnavailable);
  EXPECT_EQ(refused.message(), "GET http://" + address + "/page: connecting: Connection refused");
  EXPECT_EQ(HttpGet("localhost", "/", kTimeout).status().code(), Code::kInvalidArgument);
}

// Answers one connection with `bytes`, whatever it asks, and closes.
Result<HttpResponse> GetOf(std::string_view bytes) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in where = {};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(where);
  CHECK(::bind(listener, reinterpret_cast<sockaddr*>(&where), sizeof(where)) == 0);
  CHECK(::listen(listener, 1) == 0);
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&where), &length);
  std::thread server([&] {
    const int peer = ::accept(listener, nullptr, nullptr);
    char request[4096];
    static_cast<void>(::recv(peer, request, sizeof(request), 0));
    static_cast<void>(::send(peer, bytes.data(), bytes.size(), MSG_NOSIGNAL));
    ::close(peer);
  });
  auto answer = HttpGet(Address(ntohs(where.sin_port)), "/", kTimeout);
  server.join();
  ::close(listener);
  return answer;
}

TEST(HttpClientOfAStrangeServer, TakesNothingThatIsNotAWholeAnswer) {
  EXPECT_EQ(GetOf("HTTP/1.0 200 OK\r\n\r\nuntil the end")->body, "until the end");
  for (const std::string& bytes :
       {std::string(), std::string("SSH-2.0-OpenSSH_9.2\r\n"), std::string(100'000, 'x'),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour"),
        std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none"),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        "HTTP/1.1 200 OK\r\nX: " + std::string(100'000, 'x')}) {
    const Status status = GetOf(bytes).status();
    EXPECT_EQ(status.code(), Code::kUnavailable) << bytes.substr(0, 60);
    EXPECT_THAT(status.message(), HasSubstr("reading the answer: ")) << bytes.substr(0, 60);
  }
}

}  // namespace
}  // namespace engram::net
