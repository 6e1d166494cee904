// Strangers that send without end, hold connections or take all descriptors: what they cost is
// bounded, and other clients are served.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "common/net/http/body.h"
#include "common/net/http/server.h"
#include "common/net/http/service.h"
#include "tests/common/net/few_descriptors.h"
#include "tests/common/net/raw_socket.h"

namespace engram::net {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr std::string_view kHost = " HTTP/1.1\r\nHost: x\r\n";

class HttpFlood : public testing::Test {
 protected:
  void Start(const HttpLimits& limits) {
    auto started = HttpService::Start(
        "127.0.0.1", 0, limits,
        [this](HttpRequest request, const std::shared_ptr<HttpReply>& reply) {
          ++handled_;
          if (request.path == "/never") return held_.push_back(reply);
          reply->Send({200, "text/plain", request.path + "[" + request.body + "]"});
        },
        PlainRefusal,
        [](const HttpRequest& request) -> std::optional<HttpResponse> {
          if (request.path != "/secret" || request.authorization == "key") return std::nullopt;
          return PlainRefusal(401, "no key");
        });
    CHECK(started.ok()) << started.status().ToString();
    service_ = std::move(*started);
  }
  std::unique_ptr<RawSocket> Open(std::string_view text = "") const {
    auto socket = std::make_unique<RawSocket>(service_->port());
    if (!text.empty()) socket->Send(text);
    return socket;
  }
  std::string Ask(std::string_view text) const { return Open(text)->Read(); }
  static std::string Get(const std::string& path) {
    return "GET " + path + std::string(kHost) + "\r\n";
  }
  static HttpLimits Small() {
    HttpLimits limits;
    limits.connections = 4;
    limits.body_bytes = 1000;
    return limits;
  }

  std::vector<std::shared_ptr<HttpReply>> held_;  // of the service's thread
  std::atomic<int> handled_ = 0;
  std::unique_ptr<HttpService> service_;
};

// One connection must not take all memory.
TEST_F(HttpFlood, AChunkExtensionOrTrailersWithoutEndAre413) {
  Start(Small());
  const std::string chunked = "POST /a" + std::string(kHost) + "Transfer-Encoding: chunked\r\n\r\n";
  for (const std::string start :
       {"0;a=", "5;a=", "5\r\nhello\r\n3;", "0\r\nX: ", "0\r\nX: y\r\nZ: "}) {
    const auto socket = Open(chunked + start);
    socket->Send(std::string(HttpBody::kTrailersBytesMax + 1, 'a'));
    const std::string answer = socket->Read();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 413 ")) << start;
    EXPECT_THAT(answer, HasSubstr("Connection: close"));
  }
  EXPECT_EQ(handled_, 0);
}

// Empty lines before a request are bounded as a header is.
TEST_F(HttpFlood, EmptyLinesWithoutEndAre400) {
  Start(Small());
  std::string lines;
  while (lines.size() <= Small().header_bytes) lines += "\r\n";
  EXPECT_THAT(Ask(lines), StartsWith("HTTP/1.1 400 "));
  EXPECT_EQ(handled_, 0);
  lines.resize(64);
  EXPECT_THAT(Ask(lines + "GET /a" + std::string(kHost) + "\r\n"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpFlood, AHeaderWithoutEndIs431HoweverItIsCut) {
  Start(Small());
  const std::string field = "X: " + std::string(95, 'a') + "\r\n";
  for (const size_t piece : {size_t{1}, size_t{7}, field.size(), field.size() * 1000}) {
    const auto socket = Open("GET /a" + std::string(kHost));
    const size_t count = Small().header_bytes / field.size() + 1;
    std::string text;
    for (size_t i = 0; i < count; ++i) text += field;
    const size_t packet = std::max(piece, text.size() / 300);
    for (size_t at = 0; at < text.size(); at += packet) socket->Send(text.substr(at, packet));
    EXPECT_THAT(socket->Read(), StartsWith("HTTP/1.1 431 ")) << piece;
  }
  EXPECT_THAT(Ask(std::string(Small().header_bytes, 'G')), StartsWith("HTTP/1.1 431 "));
}

// "GET /smuggled" must not run as the next request.
TEST_F(HttpFlood, WhatFollowsABodyOfUnknownFramingDoesNotRun) {
  Start(Small());
  for (const std::string fields :
       {"Transfer-Encoding: gzip\r\n", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nContent-Length: 9\r\n", "Host: y\r\n"}) {
    const std::string answer =
        Ask("POST /a" + std::string(kHost) + fields + "\r\n0\r\n\r\n" + Get("/smuggled"));
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 400 ")) << fields;
    EXPECT_THAT(answer, HasSubstr("Connection: close")) << fields;
    EXPECT_EQ(answer.find("HTTP/1.1 ", 1), std::string::npos) << answer;
  }
  EXPECT_EQ(handled_, 0);
}

TEST_F(HttpFlood, ABodyIsNotReadBeforeItsRequestIsAdmitted) {
  Start(Small());
  const std::string post = "POST /secret" + std::string(kHost);
  const auto stranger = Open(post + "Expect: 100-continue\r\nContent-Length: 900\r\n\r\n");
  EXPECT_THAT(stranger->Read(), StartsWith("HTTP/1.1 401 ")) << "and no 100";
  EXPECT_THAT(Ask(post + "Transfer-Encoding: chunked\r\n\r\n"), StartsWith("HTTP/1.1 401 "));
  EXPECT_EQ(handled_, 0);
  EXPECT_THAT(Open(post + "Authorization: key\r\nContent-Length: 2\r\n\r\nab")->Read("]"),
              HasSubstr("/secret[ab]"));
  const auto keeps = Open(Get("/secret"));
  EXPECT_THAT(keeps->Read("no key\n"), HasSubstr("keep-alive")) << "there is no body to skip";
  keeps->Send(Get("/b"));
  EXPECT_THAT(keeps->Read("]"), HasSubstr("/b[]"));
}

TEST_F(HttpFlood, BodiesTogetherTakeNoMoreThanTheirShare) {
  HttpLimits limits = Small();
  limits.connections = 64;
  limits.body_bytes = 100'000;
  limits.bodies_bytes = 500'000;
  Start(limits);
  const std::string begun =
      "POST /a" + std::string(kHost) + "Content-Length: 100000\r\n\r\n" + std::string(90'000, 'x');
  std::vector<std::unique_ptr<RawSocket>> uploads;
  for (int i = 0; i < 12; ++i) uploads.push_back(Open(begun));
  EXPECT_THAT(uploads.back()->Read(), StartsWith("HTTP/1.1 429 "));
  uploads.clear();
  std::string answer;
  for (int i = 0; i < 1000 && answer.find(" 200 ") == std::string::npos; ++i) {
    answer = Open(begun + std::string(10'000, 'x'))->Read("]");
  }
  EXPECT_THAT(answer, HasSubstr(" 200 ")) << "what they held is free again";
}

TEST_F(HttpFlood, AnUploadDoesNotGiveWayToANewcomer) {
  Start(Small());
  const auto upload =
      Open("POST /a" + std::string(kHost) + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  ASSERT_THAT(upload->Read("\r\n\r\n"), HasSubstr(" 100 "));
  std::vector<std::unique_ptr<RawSocket>> others;
  for (int i = 0; i < 12; ++i) {
    others.push_back(Open(Get("/b")));
    EXPECT_THAT(others.back()->Read("]"), HasSubstr(" 200 "));
    upload->Send(i < 2 ? "x" : "");
  }
  upload->Send("x");
  EXPECT_THAT(upload->Read("]"), HasSubstr("/a[xxx]"));
}

TEST_F(HttpFlood, HeadersThatAreNeverFinishedKeepNobodyOut) {
  Start(Small());
  std::vector<std::unique_ptr<RawSocket>> slow;
  for (int i = 0; i < 40; ++i) slow.push_back(Open("GET /slow HTTP/1.1\r\nHo"));
  EXPECT_THAT(Open(Get("/a"))->Read("]"), HasSubstr(" 200 "));
}

TEST_F(HttpFlood, WhenAllConnectionsWorkHealthIsAnswered) {
  Start(Small());
  std::vector<std::unique_ptr<RawSocket>> busy;
  for (int i = 1; i <= 4; ++i) {
    busy.push_back(Open(Get("/never")));
    while (handled_ < i) {
    }
  }
  std::vector<std::unique_ptr<RawSocket>> silent;
  for (int i = 0; i < 50; ++i) silent.push_back(Open());
  EXPECT_THAT(Ask(Get("/a")), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Ask(Get("/health")), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask("GET /ready HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.0 200 "));
  service_->Post([this] { held_.clear(); });
  EXPECT_THAT(busy[0]->Read("made"), HasSubstr(" 500 "));
}

TEST_F(HttpFlood, WithoutDescriptorsTheIdleGiveTheirs) {
  Start(Small());
  const auto idle = Open(Get("/a"));
  ASSERT_THAT(idle->Read("]"), HasSubstr(" 200 "));
  FewDescriptors few;
  few.TakeAll();
  few.Release(1);
  const auto client = Open(Get("/b"));  // takes the last
  EXPECT_THAT(client->Read("]"), HasSubstr("/b[]"));
  EXPECT_TRUE(idle->Closed());
}

TEST_F(HttpFlood, WithoutDescriptorsHealthIsAnswered) {
  Start(Small());
  const auto busy = Open(Get("/never"));
  while (handled_ < 1) {
  }
  FewDescriptors few;
  few.TakeAll();
  few.Release(1);
  const std::string answer = Ask(Get("/health"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(answer, HasSubstr("Connection: close")) << "the descriptor is needed again";
}

// 256 of them are as many as the server takes connections.
TEST(HttpServerFlood, SocketsThatPipelineAndDoNotReadDoNotFailTheLivenessProbe) {
  std::map<std::string, HttpServer::Handler> routes;
  routes["/health"] = [] { return HttpResponse{200, "text/plain", "alive\n"}; };
  routes["/metrics"] = [] { return HttpResponse{200, "text/plain", std::string(100'000, 'm')}; };
  auto server = HttpServer::Start("127.0.0.1", 0, std::move(routes));
  ASSERT_TRUE(server.ok()) << server.status().ToString();
  std::string pipelined;
  for (int i = 0; i < 200; ++i) pipelined += "GET /metrics" + std::string(kHost) + "\r\n";
  std::vector<std::unique_ptr<RawSocket>> flood;
  for (int i = 0; i < HttpServer::kConnectionsMax; ++i) {
    flood.push_back(std::make_unique<RawSocket>((*server)->port()));
    flood.back()->Send(pipelined);
  }
  for (int i = 0; i < 3; ++i) {
    RawSocket probe((*server)->port());
    probe.Send("GET /health" + std::string(kHost) + "Connection: close\r\n\r\n");
    EXPECT_THAT(probe.Read(), HasSubstr("alive\n"));
  }
}

}  // namespace
}  // namespace engram::net
