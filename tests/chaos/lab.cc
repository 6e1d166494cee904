#include "tests/chaos/lab.h"

#include <fmt/format.h>
#include <sys/mount.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

#include "common/net/http/client.h"
#include "tests/common/net/raw_socket.h"
#include "tests/support/cluster.h"
#include "tests/support/eventually.h"

namespace engram::chaos {
namespace {

using namespace std::chrono_literals;
using testing_support::Binary;
using testing_support::Eventually;
using testing_support::Process;

constexpr size_t kEngineHost = 0;
constexpr size_t kLoadHost = Lab::kNodes + 1;
constexpr int kDiskMib = 40;              // a store takes 3, and more with each list it has seen
constexpr double kLookupsToSee = 5;       // of a node that gets its share of 200 a second,
constexpr auto kLookAgain = 100ms;        // after so long
constexpr auto kAskedForMetrics = 500ms;  // a node that is cut off does not hold the test up
constexpr char kSecret[] = "security.secret_file=";  // tools ask nodes of other hosts with one
const std::string kControlPort = "7400", kHttpPort = "7410";

std::vector<std::string> WithSettings(std::vector<std::string> argv,
                                      const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) argv.insert(argv.end(), {"--set", setting});
  return argv;
}

}  // namespace

Result<std::unique_ptr<Lab>> Lab::Make(std::unique_ptr<Network> network,
                                       const std::string& work_dir, double lookups_per_s) {
  std::unique_ptr<Lab> lab(new Lab(std::move(network), work_dir));
  lab->model_ = testing_support::MakeModel(work_dir, "tiny", "paper", 7);
  testing_support::WriteFile(lab->secret_file(), "the secret of this cluster\n");
  std::filesystem::permissions(lab->secret_file(), std::filesystem::perms::owner_read);
  RETURN_IF_ERROR(lab->StartNodes());
  RETURN_IF_ERROR(lab->StartEngine());
  RETURN_IF_ERROR(lab->StartLoad(lookups_per_s));
  if (!lab->AwaitWhole()) {
    return Unavailable("the cluster is not whole: " + lab->load_->Stderr());
  }
  return lab;
}

Lab::~Lab() {
  for (size_t i = 0; i < kNodes; ++i) {
    nodes_[i].reset();
    ::umount2(disk(i).c_str(), MNT_DETACH);
  }
}

Status Lab::StartNodes() {
  for (size_t i = 0; i < kNodes; ++i) {
    std::filesystem::create_directories(disk(i));
    const std::string size = fmt::format("size={}m", kDiskMib);
    if (::mount("none", disk(i).c_str(), "tmpfs", 0, size.c_str()) != 0) {
      return Unavailable(fmt::format("cannot mount a tmpfs: {}", std::strerror(errno)));
    }
    Launch(i);
  }
  for (size_t i = 0; i < kNodes; ++i) {
    if (!AwaitReady(i)) return Unavailable("a node did not start: " + nodes_[i]->Stderr());
  }
  return OkStatus();
}

void Lab::Launch(size_t node) {
  const std::string address = Network::Address(NodeHost(node));
  nodes_[node] = std::make_unique<Process>(
      fmt::format("m{}", node),
      network_->On(
          NodeHost(node),
          WithSettings({Binary("engram-memnode")},
                       {fmt::format("node.name=m{}", node), "cluster.members=m0,m1,m2",
                        "cluster.replicas=2", "model.path=" + model_, "store.path=" + store(node),
                        "store.reserve_mib=1", "store.scrub_pause_s=1", kSecret + secret_file(),
                        "control.listen=" + address + ":" + kControlPort,
                        "http.listen=" + address + ":" + kHttpPort})),
      work_dir_);
}

bool Lab::AwaitReady(size_t node) { return !nodes_[node]->WaitLine("ready ", 30s).empty(); }

std::string Lab::control(size_t node) const {
  return Network::Address(NodeHost(node)) + ":" + kControlPort;
}

std::string Lab::disk(size_t node) const { return fmt::format("{}/disk-m{}", work_dir_, node); }

std::string Lab::Memnodes() const {
  std::string text;
  for (size_t i = 0; i < kNodes; ++i) text += (i > 0 ? "," : "") + control(i);
  return text;
}

Status Lab::StartEngine() {
  engine_ = std::make_unique<Process>(
      "engine",
      network_->On(kEngineHost, WithSettings({Binary("engram-compute"), "serve", "--model", model_,
                                              "--memnodes", Memnodes()},
                                             {"api.listen=127.0.0.1:0", "lookup.path=gather",
                                              "engine.threads=1", kSecret + secret_file()})),
      work_dir_);
  const std::string http = testing_support::ValueOf(engine_->WaitLine("ready ", 30s), "http");
  if (http.empty()) return Unavailable("the engine did not start: " + engine_->Stderr());
  engine_port_ = static_cast<uint16_t>(std::stoi(http.substr(http.rfind(':') + 1)));
  return OkStatus();
}

Status Lab::StartLoad(double lookups_per_s) {
  load_ = std::make_unique<Process>(
      "load",
      network_->On(kLoadHost,
                   WithSettings({Binary("engram-load"), "--model", model_, "--memnodes", Memnodes(),
                                 "--rate", fmt::format("{}", lookups_per_s), "--tokens", "16",
                                 "--seconds", "3600", "--warm-up", "0", "--pool-mb", "16", "--json",
                                 work_dir_ + "/load.json", "--steps", work_dir_ + "/lookups.csv"},
                                {"lookup.path=gather", kSecret + secret_file()})),
      work_dir_);
  return OkStatus();
}

double Lab::Metric(size_t node, const std::string& name) const {
  const auto got = net::HttpGet(Network::Address(NodeHost(node)) + ":" + kHttpPort, "/metrics",
                                kAskedForMetrics);
  if (!got.ok()) return -1;
  const size_t at = got->body.find("\n" + name);
  return at == std::string::npos ? -1 : std::stod(got->body.substr(got->body.find(' ', at)));
}

bool Lab::AwaitWhole() {
  return Eventually([&] { return AllGetLookups(); }) && Eventually([&] { return EngineHasAll(); });
}

// More than the clients' probes, one a second each.
bool Lab::AllGetLookups() const {
  std::array<double, kNodes> before;
  const auto lookups = [&](size_t i) { return Metric(i, "engram_memnode_requests_total"); };
  for (size_t i = 0; i < kNodes; ++i) {
    if ((before[i] = lookups(i)) < 0) return false;
  }
  std::this_thread::sleep_for(kLookAgain);
  for (size_t i = 0; i < kNodes; ++i) {
    if (lookups(i) < before[i] + kLookupsToSee) return false;
  }
  return true;
}

bool Lab::EngineHasAll() const {
  const auto ready = net::HttpGet(fmt::format("127.0.0.1:{}", engine_port_), "/ready", 5s);
  return ready.ok() && ready->status == 200 && ready->body.find("degraded") == std::string::npos;
}

std::string Lab::Ask() const {
  const std::string body =
      R"({"prompt":"Once upon a time there was","max_tokens":12,"ignore_eos":true,)"
      R"("temperature":0,"logprobs":2})";
  net::RawSocket socket(engine_port_);
  socket.Send(
      fmt::format("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                  "Content-Length: {}\r\n\r\n{}",
                  body.size(), body));
  const std::string answer = socket.Read();
  const size_t choices = answer.find("\"choices\"");
  if (choices == std::string::npos) return answer;
  const auto parsed = io::ParseJson(answer.substr(answer.find("\r\n\r\n") + 4), "the answer");
  if (!parsed.ok()) return answer;
  return json::serialize(parsed->at("choices"));
}

Result<json::object> Lab::EndLoad(std::string* lookups_file) {
  load_->Signal(SIGINT);
  const std::optional<int> code = load_->WaitExit(30s);
  // 0: good; 1: lookups failed; 2: wrong rows; 3: the machine was too busy for latencies.
  if (!code.has_value() || *code > 3) return InternalError("engram-load: " + load_->Stderr());
  *lookups_file = work_dir_ + "/lookups.csv";
  ASSIGN_OR_RETURN(json::value report, io::ParseJsonFile(work_dir_ + "/load.json"));
  return report.as_object();
}

}  // namespace engram::chaos
