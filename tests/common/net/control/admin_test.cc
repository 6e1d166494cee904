// A tool's calls to a node over its control port, beside clients that stay connected.
#include "common/net/control/admin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <future>
#include <thread>

#include "common/base/check.h"
#include "common/base/rng.h"
#include "common/net/control/control.h"
#include "common/net/control/messages.h"
#include "common/net/tcp/challenge.h"
#include "common/net/tcp/dial.h"
#include "tests/common/net/tcp/harness.h"

namespace engram::net {
namespace {

using testing::HasSubstr;

constexpr Nanos kTimeout = std::chrono::seconds(10);

// Answers with what it was asked, and how often it was.
struct Node {
  explicit Node(std::shared_ptr<const Security> security = nullptr, bool answers = true,
                const std::string& host = "127.0.0.1", bool tells_status = false) {
    ControlServer::Callbacks callbacks;
    callbacks.on_hello = [](const Hello&, const auto& answer) {
      answer(Unavailable("no clients"));
    };
    callbacks.on_gone = [](uint64_t) {};
    if (answers) {
      callbacks.on_admin = [this](const json::object& request) -> Result<json::object> {
        ++asked;
        if (request.contains("wait")) go.get_future().wait();
        if (request.contains("refuse")) return NotFound("no such thing");
        if (request.contains("flood")) {
          return json::object{{"rows", std::string(kControlFrameBytesMax, 'x')}};
        }
        return json::object{{"heard", request}};
      };
    }
    if (tells_status) {
      callbacks.on_status = [](const auto& answer) { answer(json::object{{"state", "serving"}}); };
    }
    server = *ControlServer::Start(host, 0, std::move(callbacks), std::move(security));
  }
  Result<json::object> Call(const json::object& request, const Security* security = nullptr) const {
    return CallNode("127.0.0.1", server->port(), request, kTimeout, security);
  }
  // The node's answer to one frame of this text.
  std::string Answer(const std::string& text) const {
    const TimePoint deadline = Clock::Real().Now() + kTimeout;
    TcpStream stream = *DialTcp("127.0.0.1", server->port(), deadline);
    CHECK(Introduce(stream, Security(), ChallengePurpose::kControl, RandomEndpointId(),
                    EndpointId{}, deadline)
              .ok());
    std::string frame(kFramePrefixBytes, '\0');
    const auto length = static_cast<uint32_t>(text.size());
    std::memcpy(frame.data(), &length, sizeof(length));
    CHECK(WriteAll(stream, frame + text, deadline, "writing").ok());
    std::array<char, kFramePrefixBytes> prefix{};
    CHECK(ReadAll(stream, prefix, deadline, "reading").ok());
    std::string answer(*FrameLength({prefix.data(), prefix.size()}), '\0');
    CHECK(ReadAll(stream, answer, deadline, "reading").ok());
    return answer;
  }

  std::atomic<int> asked = 0;
  std::promise<void> go;  // ends a request that waits
  std::unique_ptr<ControlServer> server;
};

TEST(Admin, ARequestIsAnsweredWithAReply) {
  Node node;
  const json::object request = {{"command", "versions"}, {"number", "18446744073709551615"}};
  const auto reply = node.Call(request);
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_EQ(reply->at("heard"), json::value(request));
  EXPECT_TRUE(node.Call({}).ok()) << "an empty one is for the node to judge";
}

TEST(Admin, ARefusalNamesTheNodeAndKeepsItsCode) {
  Node node;
  const Status status = node.Call({{"refuse", true}}).status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("no such thing"));
  EXPECT_THAT(status.message(), HasSubstr(std::to_string(node.server->port())));
}

TEST(Admin, AStatusIsToldWhileAnotherRequestIsCarriedOut) {
  Node node(nullptr, true, "127.0.0.1", /*tells_status=*/true);
  auto carried_out = std::async(std::launch::async, [&] { return node.Call({{"wait", true}}); });
  const TimePoint deadline = Clock::Real().Now() + kTimeout;
  while (node.asked == 0 && Clock::Real().Now() < deadline) std::this_thread::yield();
  const auto told = node.Call({{"command", "status"}});
  ASSERT_TRUE(told.ok()) << told.status().ToString();
  EXPECT_EQ(told->at("state"), "serving");
  EXPECT_EQ(node.asked, 1) << "by the other callback";
  node.go.set_value();
  EXPECT_TRUE(carried_out.get().ok());
  Node plain;
  EXPECT_TRUE(plain.Call({{"command", "status"}})->contains("heard")) << "a request as any other";
}

TEST(Admin, AStatusNeedsTheSecret) {
  Node node(nullptr, true, "0.0.0.0", /*tells_status=*/true);
  EXPECT_THAT(node.Call({{"command", "status"}}).status().message(),
              HasSubstr("security.secret_file"));
}

TEST(Admin, ANodeThatTakesNoneRefuses) {
  Node node(nullptr, /*answers=*/false);
  EXPECT_THAT(node.Call({{"command", "versions"}}).status().message(),
              HasSubstr("nothing can be administered here"));
}

TEST(Admin, NobodyThereIsUnavailable) {
  uint16_t port = 0;
  {
    const Node node;
    port = node.server->port();
  }
  EXPECT_EQ(CallNode("127.0.0.1", port, {}, kTimeout).status().code(), Code::kUnavailable);
}

TEST(Admin, WhatDoesNotFitAFrameIsToldAndNotSent) {
  Node node;
  const json::object large = {{"name", std::string(kControlFrameBytesMax, 'x')}};
  EXPECT_EQ(node.Call(large).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(node.asked, 0);
  const Status flood = node.Call({{"flood", true}}).status();
  EXPECT_EQ(flood.code(), Code::kResourceExhausted);
  EXPECT_THAT(flood.message(), HasSubstr("more than fits in a frame"));
}

TEST(Admin, OnlyWhoKnowsTheSecretMayAsk) {
  const auto secret = std::make_shared<const Security>("a secret of the cluster", nullptr);
  const Security other("another cluster's secret", nullptr);
  Node node(secret);
  for (const Security* wrong : {&other, static_cast<const Security*>(nullptr)}) {
    EXPECT_THAT(node.Call({{"command", "drop"}}, wrong).status().message(), HasSubstr("secret"));
  }
  EXPECT_EQ(node.asked, 0);
  EXPECT_TRUE(node.Call({{"command", "versions"}}, secret.get()).ok());
}

// Raw import, prepare and commit requests could otherwise replace the node's rows.
TEST(Admin, WithoutASecretAPortThatIsOpenToOtherHostsTakesNoRequests) {
  for (const char* host : {"0.0.0.0", "::", "::ffff:0.0.0.0"}) {
    Node node(nullptr, true, host);
    const Status refused = node.Call({{"command", "versions"}}).status();
    EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
    EXPECT_THAT(refused.message(), HasSubstr("security.secret_file")) << host;
    EXPECT_EQ(node.asked, 0);
  }
  const auto secret = std::make_shared<const Security>("a secret of the cluster", nullptr);
  Node secured(secret, true, "0.0.0.0");
  EXPECT_TRUE(secured.Call({}, secret.get()).ok());
  Node local(nullptr, true, "localhost");
  EXPECT_TRUE(local.Call({}).ok());
}

TEST(Admin, ACertificateCountsWhereItIsChecked) {
  const auto checked = TlsSecurity(true);
  Node node(checked, true, "0.0.0.0");
  EXPECT_TRUE(node.Call({}, checked.get()).ok());
  const auto unchecked = TlsSecurity(false);
  Node open(unchecked, true, "0.0.0.0");
  EXPECT_THAT(open.Call({}, unchecked.get()).status().message(), HasSubstr("security.secret_file"));
  EXPECT_EQ(open.asked, 0);
}

// A node that was stopped and goes on does nothing that its tools have given up meanwhile.
TEST(Admin, ARequestWhoseToolHasHungUpIsNotCarriedOut) {
  Node node;
  const TimePoint deadline = Clock::Real().Now() + kTimeout;
  TcpStream gone = *DialTcp("127.0.0.1", node.server->port(), deadline);
  ASSERT_TRUE(Introduce(gone, Security(), ChallengePurpose::kControl, RandomEndpointId(),
                        EndpointId{}, deadline)
                  .ok());
  std::thread stopped([&] { EXPECT_TRUE(node.Call({{"wait", true}}).ok()); });
  while (node.asked == 0 && Clock::Real().Now() < deadline) std::this_thread::yield();
  ASSERT_TRUE(WriteAll(gone, AdminFrame({{"command", "commit"}}), deadline, "writing").ok());
  gone = TcpStream();
  node.go.set_value();
  stopped.join();
  EXPECT_TRUE(node.Call({{"command", "versions"}}).ok());
  EXPECT_EQ(node.asked, 2);
}

TEST(Admin, AClientIsAnsweredWhileARequestIsCarriedOutAndToolsBeyondTheQueueAreRefused) {
  Node node;
  auto carried_out = std::async(std::launch::async, [&] { return node.Call({{"wait", true}}); });
  const TimePoint deadline = Clock::Real().Now() + kTimeout;
  while (node.asked == 0 && Clock::Real().Now() < deadline) std::this_thread::yield();
  const auto client = ControlClient::Connect("127.0.0.1", node.server->port(), {}, kTimeout);
  EXPECT_THAT(client.status().message(), HasSubstr("no clients"));
  std::vector<std::future<Result<json::object>>> tools;
  for (size_t i = 0; i < kAdminWaitingMax + 3; ++i) {
    tools.push_back(std::async(std::launch::async, [&] { return node.Call({}); }));
  }
  size_t refused = 0;
  while (refused < 3 && Clock::Real().Now() < deadline) {
    refused = static_cast<size_t>(std::ranges::count_if(tools, [](const auto& tool) {
      return tool.wait_for(Nanos(0)) == std::future_status::ready;
    }));
  }
  EXPECT_EQ(refused, 3u);
  EXPECT_EQ(node.asked, 1);
  node.go.set_value();
  EXPECT_TRUE(carried_out.get().ok());
  size_t answered = 0;
  for (auto& tool : tools) {
    const auto reply = tool.get();
    if (reply.ok()) {
      ++answered;
    } else {
      EXPECT_EQ(reply.status().code(), Code::kResourceExhausted) << reply.status().message();
    }
  }
  EXPECT_EQ(answered, kAdminWaitingMax);
}

TEST(Admin, RequestsTravelOverTls) {
  const auto security = TlsSecurity(true);
  Node node(security);
  EXPECT_TRUE(node.Call({{"command", "versions"}}, security.get()).ok());
  EXPECT_FALSE(node.Call({{"command", "versions"}}).ok());
  EXPECT_EQ(node.asked, 1);
}

TEST(Admin, OnlyAnObjectIsARequest) {
  Node node;
  for (const std::string text : {R"({"admin":7})", R"({"admin":null})", R"({"admin":[{}]})",
                                 R"({"admin":{)", R"([{"admin":{}}])", R"("admin")"}) {
    EXPECT_THAT(node.Answer(text), HasSubstr("refused")) << text;
  }
  EXPECT_EQ(node.asked, 0);
  EXPECT_THAT(node.Answer(R"({"admin":{"a":{"b":[1,2,{}]}}})"), HasSubstr("heard"));
}

TEST(Admin, DamagedRequestsNeverTakeTheNodeDown) {
  Node node;
  const std::string sound = AdminFrame({{"command", "prepare"}, {"name", "tiny"}}).substr(4);
  Rng rng(17);
  for (int round = 0; round < 100; ++round) {
    std::string damaged = sound;
    for (int i = 0; i < 3; ++i) {
      damaged[rng.NextBelow(damaged.size())] = static_cast<char>(rng.NextU64());
    }
    const std::string answer = node.Answer(damaged);
    EXPECT_TRUE(answer.starts_with("{\"re")) << answer;
  }
  EXPECT_TRUE(node.Call({}).ok());
}

}  // namespace
}  // namespace engram::net
