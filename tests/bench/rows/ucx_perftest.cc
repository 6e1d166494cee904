#include "tests/bench/rows/ucx_perftest.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <sstream>
#include <thread>
#include <vector>

#include "tests/support/process.h"

namespace engram::bench {
namespace {

constexpr int kStartAttempts = 50;  // its server takes a moment to listen, and says nothing
constexpr auto kStartPoll = std::chrono::milliseconds(20);
constexpr auto kRunLimit = std::chrono::seconds(30);

const std::vector<std::string>& UcxSettings() {
  static const std::vector<std::string> kSettings = {
      "UCX_TLS=tcp,self",         "UCX_NET_DEVICES=lo",  "UCX_ZCOPY_THRESH=1k",
      "UCX_TCP_RX_SEG_SIZE=256k", "UCX_RNDV_THRESH=inf", "UCX_WARN_UNUSED_ENV_VARS=n"};
  return kSettings;
}

std::vector<std::string> CommandLine(int cpu, const std::vector<std::string>& arguments) {
  std::vector<std::string> argv = {FindProgram("env")};
  argv.insert(argv.end(), UcxSettings().begin(), UcxSettings().end());
  argv.push_back(FindProgram("ucx_perftest"));
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return PinnedCommand(cpu, std::move(argv));
}

// The last figure of the last line of figures: messages a second over the whole run.
Result<double> MessagesPerSecond(const std::string& out) {
  double last = 0;
  std::istringstream lines(out);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::vector<double> figures;
    for (double figure = 0; words >> figure;) figures.push_back(figure);
    if (words.eof() && figures.size() >= 8) last = figures.back();
  }
  if (last > 0) return last;
  return DataLoss("ucx_perftest printed no figures: " + out.substr(0, 200));
}

}  // namespace

std::string UcxPerftest::Missing() {
  if (FindProgram("ucx_perftest").empty()) {
    return "ucx_perftest is not installed: apt-get install ucx-utils";
  }
  return "";
}

std::string UcxPerftest::Settings() {
  std::string text = "-t ucp_am_bw";
  for (const std::string& setting : UcxSettings()) text += " " + setting;
  return text;
}

Result<Round> UcxPerftest::Run(double seconds) {
  ASSIGN_OR_RETURN(const int port, FreeLoopbackPort());
  const std::string name = fmt::format("ucx{}", runs_++);
  const std::string port_text = std::to_string(port);
  testing_support::Process server(name + "-server", CommandLine(cores_.server, {"-p", port_text}),
                                  work_dir_);
  const auto messages = static_cast<uint64_t>(std::max(100.0, messages_per_s_ * seconds));
  for (int attempt = 0; attempt < kStartAttempts && !Interrupted(); ++attempt) {
    std::this_thread::sleep_for(kStartPoll);
    const auto client = testing_support::RunToEnd(
        CommandLine(cores_.client, {"127.0.0.1", "-p", port_text, "-t", "ucp_am_bw", "-s",
                                    std::to_string(message_bytes_), "-n", std::to_string(messages),
                                    "-w", std::to_string(messages / 20), "-f"}),
        work_dir_, kRunLimit);
    if (client.exit_code == -1) {
      return DeadlineExceeded(fmt::format("ucx_perftest, {} messages of {} bytes: no end in 30 s",
                                          messages, message_bytes_));
    }
    if (client.exit_code != 0 && server.Running()) continue;  // not listening yet
    ASSIGN_OR_RETURN(messages_per_s_, MessagesPerSecond(client.out));
    Round round;
    round.rows = messages * rows_;
    round.seconds = static_cast<double>(messages) / messages_per_s_;
    return round;
  }
  if (Interrupted()) return Cancelled("interrupted");
  return Unavailable("ucx_perftest's server does not answer: " + server.Stderr());
}

}  // namespace engram::bench
