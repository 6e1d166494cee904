#include "compute/commands/serve.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <thread>

#include "common/base/shutdown.h"
#include "common/io/host_port.h"
#include "common/net/control/control.h"
#include "common/obs/log.h"
#include "compute/api/api_server.h"
#include "compute/commands/file.h"
#include "compute/session/session.h"
#include "kernels/isa.h"

namespace engram::compute {
namespace {

constexpr auto kDrainPoll = std::chrono::milliseconds(5);
constexpr auto kFlushMax = std::chrono::seconds(5);  // of answers already made

std::string ModelName(const ComputeConfig& config) {
  if (!config.api.model_name.empty()) return config.api.model_name;
  if (!config.model_name.empty()) return config.model_name;
  return client::FolderName(config.model_path);
}

Result<std::string> ReadKey(const std::string& path) {
  if (path.empty()) return std::string();
  ASSIGN_OR_RETURN(std::string key, ReadWholeFile(path));
  while (!key.empty() && (key.back() == '\n' || key.back() == '\r')) key.pop_back();
  if (!key.empty()) return key;
  return InvalidArgument(fmt::format("api.key_file {} is empty", path));
}

Result<ApiOptions> OptionsOf(const ApiConfig& config) {
  ApiOptions options;
  ASSIGN_OR_RETURN(const io::HostPort address, io::ParseHostPort(config.listen));
  options.host = address.host;
  options.port = address.port;
  ASSIGN_OR_RETURN(options.key, ReadKey(config.key_file));
  options.limits.connections = static_cast<int>(config.connections);
  options.limits.body_bytes = static_cast<uint64_t>(config.body_mib) << 20;
  options.limits.bodies_bytes = BodyReader::kBodiesWaitingMax * options.limits.body_bytes;
  options.limits.unsent_bytes = config.unsent_kib << 10;
  options.limits.idle_seconds = static_cast<int>(config.idle_timeout_s);
  options.keep_alive_ms = config.keep_alive_ms;
  options.request_timeout_s = config.request_timeout_s;
  return options;
}

void WarnOfMissingMarkers(const ApiConfig& config, ChatTemplate chat,
                          const text::Tokenizer& tokenizer) {
  const std::vector<std::string> missing = MissingMarkers(chat, tokenizer);
  if (missing.empty()) return;
  obs::LogWarn(fmt::format(
      "chat markers are no tokens of tokenizer.json and are spelt out as text: answers to chats "
      "may "
      "make no sense; render chats in the client with api.chat_template=raw api.chat_template={} "
      "missing={}",
      config.chat_template, fmt::join(missing, ",")));
}

// True when everything accepted is answered before `limit`.
bool AwaitIdle(ApiServer& server, const CompletionEngine& engine, Nanos limit) {
  const TimePoint end = Clock::Real().Now() + limit;
  while (true) {
    const EngineSnapshot now = engine.Snapshot();
    if (now.running + now.waiting == 0 && server.Idle()) return true;
    if (Clock::Real().Now() >= end) return false;
    std::this_thread::sleep_for(kDrainPoll);
  }
}

std::string ReadyLine(const ApiOptions& options, const ApiServer& server, const ApiModel& model) {
  const TablesInfo& tables = model.tables;
  std::string line = fmt::format("ready http={} model={}",
                                 io::FormatHostPort(options.host, server.port()), model.name);
  if (tables.remote) {
    line += fmt::format(" tables_version={} content_digest={} compared={}", tables.version,
                        tables.content_digest, tables.compared);
  }
  return line;
}

}  // namespace

Status RunServe(const ComputeConfig& config, parallel::Collective& ranks) {
  ASSIGN_OR_RETURN(const ApiOptions options, OptionsOf(config.api));
  ApiModel model;
  ASSIGN_OR_RETURN(model.chat_template, ChatTemplateOf(config.api.chat_template));
  ASSIGN_OR_RETURN(const int real_stdout, TakeStdout());
  ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Open(config, ranks));
  ASSIGN_OR_RETURN(const text::Tokenizer tokenizer,
                   text::Tokenizer::Load(config.model_path + "/tokenizer.json"));
  WarnOfMissingMarkers(config.api, model.chat_template, tokenizer);
  CompletionEngine& engine = session->completions();
  model.name = ModelName(config);
  model.tokenizer = &tokenizer;
  model.vocab_size = session->model().vocab_size;
  model.positions_max = engine.positions_max();
  model.prompts_max = config.api.prompts_max;
  model.allow_unknown_fields = config.api.allow_unknown_fields;
  model.tables = session->tables();
  ASSIGN_OR_RETURN(const std::unique_ptr<ApiServer> server,
                   ApiServer::Start(options, model, engine));
  RETURN_IF_ERROR(CatchShutdownSignals());
  RETURN_IF_ERROR(WriteLine(real_stdout, ReadyLine(options, *server, model)));
  WaitForShutdownSignal();
  obs::LogInfo("signal received, draining");
  engine.StartDraining();
  if (AwaitIdle(*server, engine, std::chrono::seconds(config.api.drain_timeout_s))) {
    return OkStatus();
  }
  obs::LogWarn(fmt::format("requests left after api.drain_timeout_s={} are aborted",
                           config.api.drain_timeout_s));
  engine.AbortAll();
  AwaitIdle(*server, engine, kFlushMax);
  return OkStatus();
}

}  // namespace engram::compute
