#include "tests/bench/peers/our_node.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <vector>

#include "common/client/lookup/config.h"
#include "tests/bench/harness/source_reader.h"

namespace engram::bench {
namespace {

constexpr auto kReadyLimit = std::chrono::minutes(5);  // 100 M rows are made in seconds

Result<std::string> MemnodeProgram() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = (self.parent_path() / "engram-memnode").string();
  if (std::filesystem::exists(program, error)) return program;
  return NotFound(fmt::format("there is no {}: build engram-memnode", program));
}

std::vector<std::string> Settings(const Tables& tables, const std::string& transport) {
  return {"procedural.layout=" + tables.spec.layout,
          fmt::format("procedural.rows_scale={}", tables.spec.rows_scale),
          fmt::format("procedural.seed={}", tables.spec.seed),
          "control.listen=127.0.0.1:0",
          "http.listen=127.0.0.1:0",
          "transport.kind=" + transport,
          "arena.share=off",
          "log.level=warn"};
}

}  // namespace

Result<std::unique_ptr<OurNode>> OurNode::Start(const Tables& tables, const Cores& cores,
                                                const std::string& transport,
                                                const std::string& work_dir) {
  ASSIGN_OR_RETURN(const std::string program, MemnodeProgram());
  std::vector<std::string> argv = {program};
  std::unique_ptr<OurNode> node(new OurNode);
  node->settings_ = "engram-memnode";
  for (const std::string& setting : Settings(tables, transport)) {
    argv.insert(argv.end(), {"--set", setting});
    node->settings_ += " " + setting;
  }
  node->settings_ += " ; one data thread, metrics on; every row's check verified";
  node->process_ = std::make_unique<testing_support::Process>(
      "engram", PinnedCommand(cores.server, std::move(argv)), work_dir);
  const std::string ready = node->process_->WaitLine("ready", kReadyLimit);
  if (Interrupted()) return Cancelled("interrupted");
  if (ready.empty()) {
    return Unavailable("engram-memnode did not become ready: " + node->process_->Stderr());
  }
  client::LookupConfig config;
  config.memnodes = {testing_support::ValueOf(ready, "control")};
  config.path = "gather";
  config.wire.kind = transport;
  ASSIGN_OR_RETURN(client::LookupClientOptions options, config.Options());
  options.identity = table::MakeProceduralIdentity(tables.spec, tables.layout);
  ASSIGN_OR_RETURN(node->client_, client::LookupClient::Connect(options, tables.layout));
  node->memory_bytes_ = ResidentBytes(node->process_->pid());
  return node;
}

std::unique_ptr<BatchReader> OurNode::MakeReader(size_t depth) {
  return MakeSourceReader(*client_, depth);
}

}  // namespace engram::bench
