// The client of etcd against servers that are none, or are not what they should be.
#include "memnode/cluster/etcd_client.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memnode/cluster/etcd_membership.h"
#include "tests/memnode/cluster/etcd_server.h"
#include "tests/memnode/cluster/states.h"
#include "tests/memnode/cluster/strange_server.h"

namespace engram::memnode {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing_support::MakeTempDir;
using testing_support::WriteFile;

constexpr char kKey[] = "/engram/state";

std::unique_ptr<EtcdClient> ClientOf(const std::vector<std::string>& endpoints, Nanos timeout) {
  EtcdConfig config;
  config.endpoints = endpoints;
  auto client = EtcdClient::Make(config, timeout);
  CHECK(client.ok()) << client.status().message();
  return *std::move(client);
}

std::string Answer(const std::string& body, const char* status = "200 OK") {
  return fmt::format("HTTP/1.1 {}\r\nContent-Length: {}\r\n\r\n{}", status, body.size(), body);
}

// Answers every connection with `bytes` and closes it.
StrangeServer::Serve Saying(const std::string& bytes) {
  return [bytes](const StrangeServer& server, int peer, std::string_view) {
    server.Send(peer, bytes);
  };
}
// The same, and then `more` for ever.
StrangeServer::Serve SayingForEver(const std::string& bytes, const std::string& more) {
  return [=](const StrangeServer& server, int peer, std::string_view) {
    if (!server.Send(peer, bytes)) return;
    while (server.Send(peer, more)) {
    }
  };
}

TEST(EtcdClient, TakesNothingFromAServerThatIsNoEtcd) {
  const std::string other_key =
      R"({"header":{"revision":"4"},"kvs":[{"key":"L290aGVy","mod_revision":"4"}]})";
  for (const std::string& bytes :
       {std::string(), std::string("SSH-2.0-OpenSSH_9.2\r\n"), std::string(200'000, 'x'),
        Answer(""), Answer("{}"), Answer("[1,2"), Answer("<html>", "404 Not Found"),
        Answer("", "500 Oh"), Answer(other_key), Answer(std::string(5 << 20, ' ')),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{"),
        std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n{")}) {
    StrangeServer server(Saying(bytes));
    const auto client = ClientOf({server.address()}, 5s);
    const Status get = client->Get(kKey).status();
    EXPECT_EQ(get.code(), Code::kUnavailable) << bytes.substr(0, 60);
    const std::string url = "etcd: http://" + server.address();
    EXPECT_THAT(get.message(), HasSubstr(url + "/v3/kv/range: ")) << bytes.substr(0, 60);
    const Status swap = client->CompareAndSwap({.key = kKey, .value = "v"}).status();
    EXPECT_EQ(swap.code(), Code::kUnavailable) << bytes.substr(0, 60);
    EXPECT_THAT(swap.message(), HasSubstr("may have done it"));
    const Status watch = client->Watch(kKey, 1).status();
    EXPECT_EQ(watch.code(), Code::kUnavailable) << bytes.substr(0, 60);
    EXPECT_THAT(watch.message(), HasSubstr(url + "/v3/watch: ")) << bytes.substr(0, 60);
  }
}

TEST(EtcdClient, EndsByItsDeadlineWhateverAServerDoes) {
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const StrangeServer::Serve servers[] = {
      [](const StrangeServer& server, int peer, std::string_view) { server.Hold(peer); },
      // A header without end, a body without end, and nothing within chunks.
      SayingForEver("HTTP/1.1 200 OK\r\n", "A"),
      SayingForEver("HTTP/1.1 200 OK\r\n\r\n", std::string(1000, '{')),
      SayingForEver(chunked, "1;" + std::string(100, 'x') + "\r\n \r\n"),
      SayingForEver(chunked, "1\r\n\n\r\n"),
  };
  for (const auto& serve : servers) {
    StrangeServer server(serve);
    const auto client = ClientOf({server.address()}, 200ms);
    EXPECT_EQ(client->Get(kKey).status().code(), Code::kUnavailable);
    EXPECT_EQ(client->CompareAndSwap({.key = kKey, .value = "v"}).status().code(),
              Code::kUnavailable);
    EXPECT_EQ(client->Watch(kKey, 1).status().code(), Code::kUnavailable);
  }
}

TEST(EtcdClient, BoundsTheLinesOfAWatch) {
  const std::string begun = "HTTP/1.1 200 OK\r\n\r\n{\"result\":{\"created\":true}}\n";
  const StrangeServer endless(SayingForEver(begun, std::string(1 << 16, ' ')));
  auto watch = ClientOf({endless.address()}, 5s)->Watch(kKey, 1);
  ASSERT_TRUE(watch.ok()) << watch.status().message();
  EXPECT_EQ((*watch)->Next(60s).status().code(), Code::kResourceExhausted);

  const std::string ends[] = {
      "", "x\n", "{\"result\":{\"canceled\":true}}\n",
      "{\"error\":{\"grpc_code\":14,\"message\":\"etcdserver: no leader\"}}\n",
      "{\"result\":{\"events\":[{\"kv\":{\"key\":\"L290aGVy\",\"mod_revision\":\"4\"}}]}}\n"};
  for (const std::string& end : ends) {
    const StrangeServer server(Saying(begun + end));
    watch = ClientOf({server.address()}, 5s)->Watch(kKey, 1);
    ASSERT_TRUE(watch.ok()) << watch.status().message();
    const Status status = (*watch)->Next(60s).status();
    EXPECT_FALSE(status.ok()) << end;
    EXPECT_THAT(status.message(), HasSubstr(server.address() + "/v3/watch: ")) << end;
  }
}

TEST(EtcdClient, SaysWhatItTriedOnEachServer) {
  std::string gone;
  { gone = StrangeServer(Saying("")).address(); }
  const StrangeServer silent(
      [](const StrangeServer& server, int peer, std::string_view) { server.Hold(peer); });
  const StrangeServer page(Saying(Answer("<html>")));
  const Status status = ClientOf({gone, silent.address(), page.address()}, 3s)->Get(kKey).status();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(
      status.message(),
      AllOf(HasSubstr("http://" + gone + "/v3/kv/range: connecting: Connection refused"),
            HasSubstr("http://" + silent.address() + "/v3/kv/range: reading the answer: not done"),
            HasSubstr("http://" + page.address() + "/v3/kv/range: not an answer of etcd")));
}

TEST(EtcdClient, StopsAtOnce) {
  std::atomic<int> asked = 0;
  StrangeServer silent([&](const StrangeServer& server, int peer, std::string_view) {
    ++asked;
    server.Hold(peer);
  });
  const auto client = ClientOf({silent.address()}, 10min);
  for (int calls = 0; calls < 2; ++calls) {
    std::stop_source stop;
    std::thread stopper([&] {
      EXPECT_TRUE(testing_support::Eventually([&] { return asked > calls; }));
      stop.request_stop();
    });
    const Status status = calls == 0 ? client->Get(kKey, stop.get_token()).status()
                                     : client->Watch(kKey, 1, stop.get_token()).status();
    EXPECT_EQ(status.code(), Code::kCancelled) << status.message();
    stopper.join();
    EXPECT_EQ(client->Get(kKey, stop.get_token()).status().code(), Code::kCancelled);
  }
}

TEST(EtcdClient, NamesTheFileThatItCannotUse) {
  const std::string folder = MakeTempDir("etcd_files");
  const auto error_of = [](const EtcdConfig& config) {
    return EtcdClient::Make(config).status().message();
  };
  EtcdConfig config;
  config.endpoints = {"https://127.0.0.1:1"};
  config.ca_file = folder + "/none.pem";
  EXPECT_THAT(error_of(config), HasSubstr("CA file " + config.ca_file));
  const auto authority = testing_support::MakeAuthority(folder, "ca");
  const auto other = testing_support::MakeAuthority(folder, "other");
  config.ca_file = authority.certificate;
  config.cert_file = folder + "/none.pem";
  config.key_file = authority.key;
  EXPECT_THAT(error_of(config), HasSubstr("certificate file " + config.cert_file));
  config.cert_file = authority.certificate;
  config.key_file = other.key;
  EXPECT_THAT(error_of(config), HasSubstr("key file"));
  config.key_file = authority.key;
  EXPECT_EQ(error_of(config), "");

  config.user = "engram";
  config.password_file = folder + "/password";
  EXPECT_THAT(error_of(config), HasSubstr("etcd.password_file " + config.password_file));
  WriteFile(config.password_file, "");
  std::filesystem::permissions(config.password_file, std::filesystem::perms::owner_read);
  EXPECT_THAT(error_of(config), HasSubstr("is empty"));
  std::filesystem::permissions(config.password_file, std::filesystem::perms(0640));
  EXPECT_THAT(error_of(config), HasSubstr("chmod 600"));
}

// The membership over such servers: never stuck, never wrong.
EtcdConfig ConfigOf(const StrangeServer& server) {
  EtcdConfig config;
  config.endpoints = {server.address()};
  return config;
}

TEST(EtcdMembershipOfStrangers, SaysThatNoEtcdAnswers) {
  const StrangeServer::Serve servers[] = {
      [](const StrangeServer& server, int peer, std::string_view) { server.Hold(peer); },
      Saying(Answer("<html>")),
      SayingForEver("HTTP/1.1 200 OK\r\n\r\n", " "),
  };
  for (const auto& serve : servers) {
    const StrangeServer server(serve);
    const auto membership = EtcdMembership::Make(ConfigOf(server));
    ASSERT_TRUE(membership.ok());
    EXPECT_FALSE((*membership)->health().ok());
    ASSERT_TRUE((*membership)->Watch([](const ClusterState&) { FAIL(); }).ok());
    ASSERT_TRUE(testing_support::Eventually([&] {
      return (*membership)->health().message().find("/v3/") != std::string::npos;
    })) << (*membership)->health().message();
    EXPECT_EQ((*membership)->health().code(), Code::kUnavailable);
  }
}

TEST(EtcdMembershipOfStrangers, EndsWhileItsServerIsSilent) {
  std::atomic<int> asked = 0;
  const StrangeServer server([&](const StrangeServer& self, int peer, std::string_view) {
    ++asked;
    self.Hold(peer);
  });
  // One that waited for its call would not end before the test is killed.
  auto membership = EtcdMembership::Make(ConfigOf(server), 10min);
  ASSERT_TRUE(membership.ok());
  ASSERT_TRUE((*membership)->Watch([](const ClusterState&) { FAIL(); }).ok());
  EXPECT_TRUE(testing_support::Eventually([&] { return asked > 0; }));
  membership->reset();
}

// An etcd whose watches begin and then tell nothing, as over a connection that died.
TEST(EtcdMembershipOfStrangers, FindsWhatAWatchDoesNotTell) {
  std::mutex mutex;
  ClusterState state = FirstState();
  int watches = 0;
  const StrangeServer server([&](const StrangeServer& self, int peer, std::string_view request) {
    std::unique_lock lock(mutex);
    const bool watch = request.find("/v3/watch") != std::string_view::npos;
    watches += watch ? 1 : 0;
    const std::string begun = "{\"result\":{\"created\":true}}\n";
    const std::string value = Base64(json::serialize(ToJson(state)));
    const std::string range = fmt::format(R"({{"header":{{"revision":"9"}},"kvs":)"
                                          R"([{{"key":"{}","mod_revision":"{}","value":"{}"}}]}})",
                                          Base64(kKey), state.revision, value);
    if (!watch) return void(self.Send(peer, Answer(range)));
    self.Send(peer, "HTTP/1.1 200 OK\r\n\r\n" + begun);
    lock.unlock();
    self.Hold(peer);
  });
  const auto membership = EtcdMembership::Make(ConfigOf(server));
  ASSERT_TRUE(membership.ok());
  std::atomic<uint64_t> told = 0;
  ASSERT_TRUE((*membership)->Watch([&](const ClusterState& newer) { told = newer.revision; }).ok());
  const auto watched = [&](int count) {
    return testing_support::Eventually([&] {
      const std::lock_guard lock(mutex);
      return watches == count;
    });
  };
  ASSERT_TRUE(watched(1));
  EXPECT_EQ(told, 1u);
  {
    const std::lock_guard lock(mutex);
    state = Adding(state, "m2");
  }
  EXPECT_TRUE(testing_support::Eventually([&] { return told == 2; }));
  EXPECT_TRUE(watched(2)) << "by another watch, which may work";
  EXPECT_TRUE((*membership)->health().ok());
}

}  // namespace
}  // namespace engram::memnode
