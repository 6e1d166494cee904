// The HTTP server as a raw socket sees it.
#include "common/net/http/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/common/net/raw_socket.h"

namespace engram::net {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

struct Http : testing::Test {
  Http() {
    std::map<std::string, HttpServer::Handler> routes;
    routes["/health"] = [] { return HttpResponse{200, "text/plain", "alive\n"}; };
    routes["/ready"] = [] { return HttpResponse{503, "text/plain", "loading\n"}; };
    auto started = HttpServer::Start("127.0.0.1", 0, std::move(routes));
    CHECK(started.ok()) << started.status().ToString();
    server = std::move(*started);
  }
  std::string Ask(std::string_view request) {
    RawSocket socket(server->port());
    socket.Send(request);
    return socket.Read();
  }
  std::unique_ptr<HttpServer> server;
};

TEST_F(Http, RoutesAnswerByExactPath) {
  const std::string answer = Ask("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(answer, HasSubstr("alive\n"));
  EXPECT_THAT(Ask("GET /ready HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.0 503"));
  EXPECT_THAT(Ask("GET /health?verbose HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.0 200"));
  EXPECT_THAT(Ask("GET /healthy HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.0 404"));
}

TEST_F(Http, OtherMethodsAreNotAllowed) {
  EXPECT_THAT(Ask("DELETE /health HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.0 405"));
}

TEST_F(Http, ConnectionsAreKept) {
  RawSocket socket(server->port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(socket.Send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"));
    EXPECT_THAT(socket.Read("alive\n"), HasSubstr("200"));
  }
}

TEST_F(Http, OversizedRequestsAreRefused) {
  const std::string header =
      "GET /health HTTP/1.1\r\nX: " + std::string(2 * HttpServer::kRequestBytesMax, 'a');
  EXPECT_THAT(Ask(header + "\r\n\r\n"), HasSubstr(" 431 "));
  EXPECT_THAT(Ask("GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
              HasSubstr(" 413 "));
}

TEST_F(Http, NonsenseIsABadRequest) {
  EXPECT_THAT(Ask("what is this\r\n\r\n"), HasSubstr(" 400 "));
}

TEST_F(Http, HalfARequestThenCloseLeavesTheServerWell) {
  for (int i = 0; i < 20; ++i) {
    RawSocket socket(server->port());
    socket.Send("GET /hea");
  }
  EXPECT_THAT(Ask("GET /health HTTP/1.0\r\n\r\n"), HasSubstr("alive"));
}

TEST_F(Http, SilentConnectionsBeyondTheLimitGiveWayToNewOnes) {
  std::vector<std::unique_ptr<RawSocket>> open;
  for (int i = 0; i < HttpServer::kConnectionsMax + 44; ++i) {
    open.push_back(std::make_unique<RawSocket>(server->port()));
    if (i > 0) continue;
    ASSERT_TRUE(open[0]->Send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"));
    ASSERT_THAT(open[0]->Read("alive\n"), HasSubstr("200"));
  }
  ASSERT_TRUE(open.back()->Send("GET /health HTTP/1.0\r\n\r\n"));
  EXPECT_THAT(open.back()->Read(), HasSubstr("alive")) << "the newest is served";
  EXPECT_TRUE(open[1]->Closed()) << "the longest silent one is not";
  EXPECT_THAT(Ask("GET /health HTTP/1.0\r\n\r\n"), HasSubstr("alive"));
}

TEST_F(Http, PortInUseIsNamed) {
  const auto second = HttpServer::Start("127.0.0.1", server->port(), {});
  EXPECT_EQ(second.status().code(), Code::kAlreadyExists);
  EXPECT_THAT(second.status().message(), HasSubstr(std::to_string(server->port())));
}

}  // namespace
}  // namespace engram::net
