// The serving program as a whole: many clients, some of which leave; nothing is left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <sstream>
#include <thread>

#include "common/base/rng.h"
#include "common/io/json.h"
#include "tests/common/net/raw_socket.h"
#include "tests/support/cluster.h"
#include "tests/support/eventually.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using net::RawSocket;
using testing::HasSubstr;
using testing_support::Binary;
using testing_support::Eventually;
using testing_support::Process;

class Serve : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("serve");
    model_ = testing_support::MakeModel(work_dir_, "tiny", "paper", 7);
  }
  void TearDown() override { std::filesystem::remove_all(work_dir_); }

  void Start(std::vector<std::string> sets, const std::string& memnodes = "") {
    std::vector<std::string> argv = {Binary("engram-compute"), "serve", "--model", model_, "--set",
                                     "api.listen=127.0.0.1:0"};
    if (!memnodes.empty()) argv.insert(argv.end(), {"--memnodes", memnodes});
    for (const std::string& set : sets) argv.insert(argv.end(), {"--set", set});
    server_ = std::make_unique<Process>("serve", argv, work_dir_);
    const std::string ready = server_->WaitLine("ready ", 20s);
    const std::string address = testing_support::ValueOf(ready, "http");
    ASSERT_FALSE(address.empty()) << server_->Stderr();
    port_ = static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
  }
  static std::string Post(const std::string& path, const std::string& body) {
    return "POST " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  std::string Ask(const std::string& path, const std::string& body) const {
    RawSocket socket(port_);
    socket.Send(Post(path, body));
    return socket.Read();
  }
  std::string Get(const std::string& path) const {
    RawSocket socket(port_);
    socket.Send("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    return socket.Read();
  }
  json::object State() const {
    RawSocket socket(port_);
    socket.Send("GET /debug/state HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    const std::string answer = socket.Read();
    return io::ParseJson(answer.substr(answer.find("\r\n\r\n") + 4), "state")->get_object();
  }
  size_t OpenFiles() const {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/" + std::to_string(server_->pid()) + "/fd")) {
      ++count;
    }
    return count;
  }
  // Until no request runs or waits.
  json::object AwaitQuiet() const {
    json::object state;
    EXPECT_TRUE(Eventually([&] {
      state = State();
      return state.at("running") == 0 && state.at("waiting") == 0;
    })) << "still busy";
    return state;
  }

  std::string work_dir_, model_;
  std::unique_ptr<Process> server_;
  uint16_t port_ = 0;
};

TEST_F(Serve, AThousandRequestsAndATenthOfClientsLeavingLeaveNothingBehind) {
  testing_support::Cluster cluster(work_dir_, model_, 2);
  Start({"engine.queue_max=24", "engine.sequences_max=6", "cache.mib=2", "engine.threads=1"},
        cluster.memnodes());
  Ask("/v1/completions", R"({"prompt":"warm","max_tokens":2})");
  AwaitQuiet();
  const size_t files = OpenFiles();
  constexpr int kClients = 40;
  std::atomic<int> answered{0}, refused{0}, left{0}, wrong{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&, c] {
      Rng rng(static_cast<uint64_t>(c));
      for (int i = 0; i < 1000 / kClients; ++i) {
        const bool stream = rng.NextBelow(2) == 0;
        const std::string body = "{\"prompt\":\"" + std::string(1 + rng.NextBelow(200), 'a') +
                                 "\",\"max_tokens\":" + std::to_string(1 + rng.NextBelow(30)) +
                                 ",\"ignore_eos\":true,\"stream\":" + (stream ? "true}" : "false}");
        RawSocket socket(port_);
        socket.Send(Post("/v1/completions", body));
        if (rng.NextBelow(10) == 0) {
          if (stream) socket.Read("data: ");
          ++left;
          continue;  // closes
        }
        const std::string answer = socket.Read();
        const bool done = answer.find("\"finish_reason\":\"length\"") != std::string::npos;
        const bool full = answer.find(" 429 ") != std::string::npos;
        ++(done ? answered : full ? refused : wrong);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(answered, 100);
  EXPECT_GT(left, 50);
  const json::object state = AwaitQuiet();
  EXPECT_EQ(state.at("pages_used"), 0);
  EXPECT_TRUE(server_->Running());
  EXPECT_TRUE(Eventually([&] { return OpenFiles() <= files; })) << OpenFiles();
  EXPECT_THAT(Ask("/v1/completions", R"({"prompt":"still","max_tokens":3})"), HasSubstr(" 200 "));
}

TEST_F(Serve, RemoteAndLocalTablesGiveTheSameAnswerAlsoInABatch) {
  testing_support::Cluster cluster(work_dir_, model_, 2);
  const std::string body =
      R"({"prompt":["one two","three","a longer prompt with more in it"],"max_tokens":20,)"
      R"("seed":5,"temperature":0.8,"logprobs":2})";
  const auto choices = [&] {
    const std::string answer = Ask("/v1/completions", body);
    return json::serialize(
        io::ParseJson(answer.substr(answer.find("\r\n\r\n") + 4), "a")->at("choices"));
  };
  Start({"engram.verify=true"}, cluster.memnodes());
  const std::string remote = choices();
  EXPECT_EQ(choices(), remote);  // now with prefix hits
  Start({"engine.threads=2", "engine.prefill_chunk=3"});
  EXPECT_EQ(choices(), remote);
  EXPECT_THAT(remote, HasSubstr("token_logprobs"));
}

TEST_F(Serve, MutatedRequestsAndRandomBytesLeaveItServing) {
  Start({"api.idle_timeout_s=1", "api.body_mib=1"});
  const std::string seeds[] = {
      Post("/v1/completions", R"({"prompt":"a","max_tokens":2,"stop":["x"],"logprobs":1})"),
      Post("/v1/chat/completions",
           R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":2,"stream":true})"),
      Post("/tokenize", R"({"prompt":"a b"})"),
      "POST /detokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
      "Connection: close\r\n\r\n5\r\n{\"tok\r\nc\r\nens\":[1,2,3]}\r\n0\r\n\r\n",
      "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"};
  Rng rng(17);
  std::vector<std::unique_ptr<RawSocket>> open;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = seeds[rng.NextBelow(std::size(seeds))];
    for (uint64_t edits = 1 + rng.NextBelow(6); edits > 0; --edits) {
      const size_t at = rng.NextBelow(bytes.size());
      switch (rng.NextBelow(4)) {
        case 0:
          bytes[at] = static_cast<char>(rng.NextBelow(256));
          break;
        case 1:
          bytes.erase(at, 1 + rng.NextBelow(8));
          break;
        case 2:
          bytes.insert(at, bytes.substr(rng.NextBelow(bytes.size()), 1 + rng.NextBelow(20)));
          break;
        default:
          bytes.resize(at + 1);
      }
      if (bytes.empty()) bytes = "G";
    }
    auto socket = std::make_unique<RawSocket>(port_);
    socket->Send(bytes);
    // Most are left at once, some stay as they are, half a request sent.
    if (rng.NextBelow(20) == 0) open.push_back(std::move(socket));
    if (open.size() > 50) open.clear();
  }
  ASSERT_TRUE(server_->Running()) << server_->Stderr();
  open.clear();
  EXPECT_EQ(AwaitQuiet().at("pages_used"), 0);
  EXPECT_THAT(Ask("/v1/completions", R"({"prompt":"still","max_tokens":3})"), HasSubstr(" 200 "));
}

TEST_F(Serve, SigtermFinishesWhatRunsRefusesWhatComesAndExitsCleanly) {
  Start({"api.drain_timeout_s=300"});  // sanitizers are slow
  RawSocket running(port_);
  running.Send(Post("/v1/completions",
                    R"({"prompt":"x","max_tokens":2000,"ignore_eos":true,"stream":true})"));
  running.Read("data: ");
  RawSocket late(port_);
  server_->Signal(SIGTERM);
  ASSERT_TRUE(Eventually([&] { return State().at("draining") == true; }));
  late.Send(Post("/v1/completions", R"({"prompt":"x"})"));
  EXPECT_THAT(late.Read(), HasSubstr(" 503 "));
  const std::string rest = running.Read();
  EXPECT_THAT(rest, HasSubstr("\"finish_reason\":\"length\""));
  EXPECT_THAT(rest, HasSubstr("[DONE]"));
  EXPECT_EQ(server_->WaitExit(30s), 0);
}

TEST_F(Serve, RequestsThatOutlastTheDrainAreAborted) {
  Start({"api.drain_timeout_s=0"});
  RawSocket running(port_);
  running.Send(Post("/v1/completions",
                    R"({"prompt":"x","max_tokens":4000,"ignore_eos":true,"stream":true})"));
  running.Read("data: ");
  server_->Signal(SIGTERM);
  EXPECT_THAT(running.Read(), HasSubstr("\"finish_reason\":\"abort\""));
  EXPECT_EQ(server_->WaitExit(10s), 0);
}

TEST_F(Serve, ALostMemoryNodeFailsRequestsAndReadinessNotTheServer) {
  testing_support::Cluster cluster(work_dir_, model_, 2);
  Start({"lookup.path=gather", "engine.deadline_ms=500"}, cluster.memnodes());
  EXPECT_THAT(Ask("/v1/completions", R"({"prompt":"x","max_tokens":4})"), HasSubstr(" 200 "));
  cluster.node(1).Signal(SIGKILL);
  cluster.node(1).WaitExit(5s);
  std::string answer;
  for (int i = 0; i < 20 && answer.find(" 503 ") == std::string::npos; ++i) {
    answer = Ask("/v1/completions", "{\"prompt\":\"words " + std::to_string(i) +
                                        " of another text\",\"max_tokens\":4}");
  }
  EXPECT_THAT(answer, HasSubstr(" 503 "));
  EXPECT_THAT(answer, HasSubstr("Engram rows"));
  EXPECT_EQ(State().at("memory").at("ok"), false);
  EXPECT_EQ(State().at("pages_used"), 0);
}

TEST_F(Serve, AStopStringInADegradedAnswerDoesNotHideThatItIsDegraded) {
  testing_support::Cluster cluster(work_dir_, model_, 2);
  Start({"lookup.path=gather", "engine.deadline_ms=500", "engram.on_missing=degrade"},
        cluster.memnodes());
  cluster.node(1).Signal(SIGKILL);
  cluster.node(1).WaitExit(5s);
  const std::string request = R"({"prompt":["Once upon a time","and then"],"temperature":0,)"
                              R"("max_tokens":12,"ignore_eos":true)";
  const auto body_of = [](const std::string& answer) {
    return io::ParseJson(answer.substr(answer.find("\r\n\r\n") + 4), "answer")->get_object();
  };
  const json::object whole = body_of(Ask("/v1/completions", request + "}"));
  const std::string text(whole.at("choices").at(0).at("text").as_string());
  ASSERT_GT(text.size(), 0u);
  // The first character stops one of the two, or both, at their first token that has it.
  size_t first = 1;
  while (first < text.size() && (static_cast<unsigned char>(text[first]) & 0xc0) == 0x80) ++first;
  const std::string stop = text.substr(0, first);
  const std::string stopping =
      request + ",\"stop\":" + json::serialize(json::string(stop)) + ",\"stream\":";
  const std::string plain = Ask("/v1/completions", stopping + "false}");
  EXPECT_THAT(plain, HasSubstr("\"finish_reason\":\"stop\""));
  EXPECT_THAT(plain, HasSubstr("X-Engram-Degraded-Positions: "));
  EXPECT_GT(body_of(plain).at("engram").at("degraded_positions").to_number<int64_t>(), 0);
  EXPECT_LT(body_of(plain).at("engram").at("degraded_positions").to_number<int64_t>(),
            whole.at("engram").at("degraded_positions").to_number<int64_t>());
  EXPECT_THAT(Ask("/v1/completions", stopping + "true}"),
              HasSubstr("\"engram\":{\"degraded_positions\":"));
}

// An idle server: nothing but its own probes can tell. A cached prompt says nothing of the nodes.
TEST_F(Serve, AnIdleServersReadinessFollowsItsMemoryNodes) {
  testing_support::Cluster cluster(work_dir_, model_, 2);
  Start({"lookup.path=gather", "lookup.cache_mib=16", "lookup.probe_timeout_ms=300"},
        cluster.memnodes());
  const auto await_ready = [&](const std::string& status) {
    std::string answer;
    EXPECT_TRUE(Eventually([&] {
      answer = Get("/ready");
      return answer.find(status) != std::string::npos;
    })) << "never"
        << status << "but " << answer;
    return answer;
  };
  await_ready(" 200 ");
  const std::string prompt = R"({"prompt":"x","max_tokens":2,"temperature":0})";
  EXPECT_THAT(Ask("/v1/completions", prompt), HasSubstr(" 200 "));
  cluster.node(1).Signal(SIGSTOP);
  EXPECT_THAT(await_ready(" 503 "), HasSubstr("memory node m1 (" + cluster.control(1)));
  EXPECT_THAT(Ask("/v1/completions", prompt), HasSubstr(" 200 ")) << "out of the cache";
  EXPECT_THAT(Get("/ready"), HasSubstr(" 503 "));
  EXPECT_THAT(Get("/metrics"), HasSubstr("engram_compute_node_up{node=\"m1\"} 0"));
  cluster.node(1).Signal(SIGCONT);
  await_ready(" 200 ");
  cluster.node(0).Signal(SIGKILL);
  EXPECT_THAT(await_ready(" 503 "), HasSubstr("dialled again"));
  cluster.Restart(0);
  await_ready(" 200 ");
  // Each change once, and not each probe.
  const std::string log = server_->Stderr();
  const auto count = [&](const std::string& line) {
    int times = 0;
    for (size_t at = log.find(line); at != std::string::npos; at = log.find(line, at + 1)) ++times;
    return times;
  };
  EXPECT_GE(count("memory node is down node=\"m1 ("), 1) << log;
  EXPECT_EQ(count("memory node is down node=\"m1 ("), count("is up again node=\"m1 (")) << log;
  EXPECT_EQ(count("memory node is gone node=\"m0 ("), 1) << log;
  EXPECT_EQ(count("memory node is back node=\"m0 ("), 1) << log;
}

// One token waits for a whole deadline, not each of them.
TEST_F(Serve, ADegradingServerWaitsForAStoppedNodeOnce) {
  testing_support::Cluster cluster(work_dir_, model_, 2);
  Start({"lookup.path=gather", "engram.on_missing=degrade", "engine.deadline_ms=700"},
        cluster.memnodes());
  const auto requests = [&] { return State().at("nodes").at(1).at("requests").to_number<int>(); };
  cluster.node(1).Signal(SIGSTOP);
  const int before = requests();
  const std::string answer =
      Ask("/v1/completions", R"({"prompt":"some words","max_tokens":24,"ignore_eos":true})");
  EXPECT_THAT(answer, HasSubstr(" 200 "));
  EXPECT_THAT(answer, HasSubstr("degraded_positions"));
  EXPECT_LE(requests() - before, 4) << "of 24 tokens' lookups those before it was found silent";
  cluster.node(1).Signal(SIGCONT);
  EXPECT_TRUE(Eventually([&] { return Get("/ready").find(" 200 ") != std::string::npos; }));
  EXPECT_THAT(Ask("/v1/completions", R"({"prompt":"other words","max_tokens":4})"),
              testing::Not(HasSubstr("degraded_positions")));
}

// Also at the embedding, which every token reads, and at tables that stay mapped.
TEST_F(Serve, TruncatedModelFilesAreAnErrorThatNamesOneAndNotTheEnd) {
  testing_support::Cluster cluster(work_dir_, model_, 1);
  const std::string body = R"({"prompt":"some words","max_tokens":4,"temperature":0})";
  const auto text = [](const std::string& answer) {
    const auto parsed = io::ParseJson(answer.substr(answer.find("\r\n\r\n") + 4), "answer");
    EXPECT_TRUE(parsed.ok()) << answer;
    return json::serialize(parsed->at("choices"));
  };
  Start({}, cluster.memnodes());
  const std::unique_ptr<Process> remote = std::move(server_);
  const uint16_t remote_port = port_;
  Start({});
  const std::string whole = Ask("/v1/completions", body);
  for (const auto& entry : std::filesystem::directory_iterator(model_)) {
    if (entry.path().extension() == ".safetensors") std::filesystem::resize_file(entry.path(), 0);
  }
  const std::string truncated =
      Ask("/v1/completions", R"({"prompt":"quite other words","max_tokens":4,"temperature":0})");
  EXPECT_THAT(truncated, HasSubstr("HTTP/1.1 5"));
  EXPECT_THAT(truncated, HasSubstr(".safetensors changed while it was in use"));
  EXPECT_TRUE(server_->Running());
  port_ = remote_port;  // its weights were copied, its rows come from the node
  EXPECT_EQ(text(Ask("/v1/completions", body)), text(whole));
  EXPECT_TRUE(remote->Running());
}

TEST_F(Serve, ABatchFileGivesWhatTheServerGives) {
  const std::string lines[] = {
      R"({"prompt":"one two","max_tokens":20,"temperature":0,"logprobs":1})",
      R"({"prompt":[5,6,7],"max_tokens":9,"seed":3,"ignore_eos":true})",
      R"({"prompt":"three","max_tokens":30,"temperature":0,"stop":["e"]})"};
  std::string input;
  for (const std::string& line : lines) input += line + "\n";
  testing_support::WriteFile(work_dir_ + "/in.jsonl", input);
  const auto run = [&](const std::string& out) {
    return testing_support::RunToEnd(
        {Binary("engram-compute"), "batch", "--model", model_, "--input", work_dir_ + "/in.jsonl",
         "--output", out, "--set", "engine.queue_max=2"},
        work_dir_, 30s);
  };
  const auto finished = run(work_dir_ + "/out.jsonl");
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  std::istringstream answers(testing_support::ReadFile(work_dir_ + "/out.jsonl"));
  Start({});
  for (const std::string& line : lines) {
    std::string answer;
    ASSERT_TRUE(std::getline(answers, answer));
    const std::string served = Ask("/v1/completions", line);
    EXPECT_EQ(
        json::serialize(io::ParseJson(answer, "batch")->at("choices")),
        json::serialize(
            io::ParseJson(served.substr(served.find("\r\n\r\n") + 4), "served")->at("choices")));
  }
  testing_support::WriteFile(work_dir_ + "/in.jsonl", input + "{\"prompt\":7}\n");
  const auto failed = run(work_dir_ + "/bad.jsonl");
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_THAT(failed.err, HasSubstr("in.jsonl line 4: prompt must be"));
  EXPECT_FALSE(std::filesystem::exists(work_dir_ + "/bad.jsonl"));
}

TEST_F(Serve, WhatItCannotServeIsSaidAtTheStart) {
  const auto failure = [&](std::vector<std::string> sets) {
    std::vector<std::string> argv = {Binary("engram-compute"), "serve", "--model", model_};
    for (const std::string& set : sets) argv.insert(argv.end(), {"--set", set});
    const auto finished = testing_support::RunToEnd(argv, work_dir_, 20s);
    EXPECT_EQ(finished.exit_code, 1);
    return finished.err;
  };
  EXPECT_THAT(failure({"api.chat_template=jinja"}), HasSubstr("deepseek or raw"));
  EXPECT_THAT(failure({"api.listen=nowhere"}), HasSubstr("nowhere"));
  EXPECT_THAT(failure({"api.key_file=/nowhere/key"}), HasSubstr("/nowhere/key"));
  EXPECT_THAT(failure({"engram.on_missing=guess"}), HasSubstr("fail or degrade"));
  EXPECT_THAT(failure({"cache.dtype=fp16"}), HasSubstr("fp32 or bf16"));
  EXPECT_THAT(failure({"engine.sequences_max=600"}), HasSubstr("engine.step_tokens"));
}

}  // namespace
}  // namespace engram
