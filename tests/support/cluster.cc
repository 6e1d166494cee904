#include "tests/support/cluster.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "common/net/http/client.h"
#include "tests/support/eventually.h"

namespace engram::testing_support {

std::string Binary(const std::string& name) { return std::string(ENGRAM_BIN_DIR) + "/" + name; }

std::string MakeModel(const std::string& work_dir, const std::string& preset,
                      const std::string& variant, int seed) {
  const std::string dir = work_dir + "/" + preset + "-" + variant + "-" + std::to_string(seed);
  const Finished made =
      RunToEnd({Binary("engramctl"), "make-model", "--preset", preset, "--variant", variant,
                "--seed", std::to_string(seed), "--out", dir},
               work_dir);
  EXPECT_EQ(made.exit_code, 0) << made.err;
  return dir;
}

Cluster::Cluster(const std::string& work_dir, const std::string& model_dir, int count,
                 std::vector<std::string> extra)
    : work_dir_(work_dir), extra_(std::move(extra)) {
  for (int i = 0; i < count; ++i) members_ += (i > 0 ? ",m" : "m") + std::to_string(i);
  const auto nodes = static_cast<size_t>(count);
  for (size_t i = 0; i < nodes; ++i) {
    Start(i, {"model.path=" + model_dir,
              fmt::format("store.path={}/store-m{}of{}", work_dir, i, count)});
  }
  for (size_t i = 0; i < nodes; ++i) AwaitReady(i);
}

void Cluster::StartJoining() {
  const size_t i = nodes_.size();
  Start(i, {"cluster.join=true", fmt::format("store.path={}/store-m{}", work_dir_, i)});
  AwaitReady(i);
}

void Cluster::Start(size_t i, const std::vector<std::string>& settings) {
  const std::string name = fmt::format("m{}", i);
  std::vector<std::string> argv = {Binary("engram-memnode")};
  std::vector<std::string> all = {"node.name=" + name, "cluster.members=" + members_,
                                  "control.listen=127.0.0.1:0", "http.listen=127.0.0.1:0"};
  all.insert(all.end(), settings.begin(), settings.end());
  for (const std::string& set : all) {
    argv.push_back("--set");
    argv.push_back(set);
  }
  argv.insert(argv.end(), extra_.begin(), extra_.end());
  argv_.push_back(argv);
  nodes_.push_back(std::make_unique<Process>(name, std::move(argv), work_dir_));
}

void Cluster::AwaitReady(size_t i) {
  const std::string line = nodes_[i]->WaitLine("ready ", std::chrono::seconds(30));
  EXPECT_NE(line, "") << "a memory node did not start: " << nodes_[i]->Stderr();
  control_.push_back(ValueOf(line, "control"));
  http_.push_back(ValueOf(line, "http"));
}

void Cluster::Restart(size_t i) {
  std::vector<std::string> argv = argv_[i];
  argv.push_back("--set");
  argv.push_back("control.listen=" + control_[i]);
  const std::string name = "m" + std::to_string(i);
  nodes_[i] = std::make_unique<Process>(name, std::move(argv), work_dir_);
  const std::string line = nodes_[i]->WaitLine("ready ", std::chrono::seconds(30));
  EXPECT_NE(line, "") << "the memory node did not start again: " << nodes_[i]->Stderr();
  EXPECT_EQ(ValueOf(line, "control"), control_[i]);
  http_[i] = ValueOf(line, "http");
}

std::string Cluster::memnodes() const {
  std::string text;
  for (const std::string& address : control_) text += (text.empty() ? "" : ",") + address;
  return text;
}

std::string Cluster::Get(size_t i, const std::string& path, int* code) const {
  const auto got = net::HttpGet(http_[i], path, std::chrono::seconds(5));
  *code = got.ok() ? got->status : 0;
  return got.ok() ? got->body : "";
}

double Cluster::Answered(size_t i) const {
  int code = 0;
  const std::string text = Get(i, "/metrics", &code);
  const size_t at = text.find("\nengram_memnode_requests_total");
  return at == std::string::npos ? -1 : std::stod(text.substr(text.find(' ', at)));
}

bool Cluster::GoOn(const std::vector<size_t>& nodes) const {
  for (const size_t node : nodes) {
    const double before = Answered(node);
    if (!Eventually([&] { return Answered(node) >= before + 20; })) return false;
  }
  return true;
}

}  // namespace engram::testing_support
