// The engine's HTTP API: OpenAI's completions, and what operators need. Routes and their handlers;
// README.md has the contract.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "compute/api/api_request.h"
#include "compute/api/body_reader.h"
#include "compute/api/completion_run.h"

namespace engram::compute {

struct ApiOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;  // 0 picks one
  std::string key;    // clients must send it as a bearer token; empty: no key is asked for
  net::HttpLimits limits;
  int64_t keep_alive_ms = 10'000;
  int64_t request_timeout_s = 600;
  int64_t probe_timeout_ms = 10'000;  // of /health/generate
};

class ApiServer {
 public:
  // `engine` and model.tokenizer must outlive the server. `worker` reads large bodies.
  // ALREADY_EXISTS when the port is taken.
  static Result<std::unique_ptr<ApiServer>> Start(
      const ApiOptions& options, const ApiModel& model, CompletionEngine& engine,
      std::unique_ptr<Worker> worker = std::make_unique<Worker>(BodyReader::kBodiesWaitingMax));
  // Cuts every connection; what they asked for is cancelled. Waits for the body being read.
  ~ApiServer();

  uint16_t port() const { return service_->port(); }
  bool Idle() { return service_->Idle(); }  // every answer asked for so far is written

 private:
  using Reply = std::shared_ptr<net::HttpReply>;
  using Handler = void (ApiServer::*)(net::HttpRequest&, const Reply&);  // may take the body
  using Parse = ApiError (*)(std::string_view, const ApiModel&, ApiRequest&);
  struct Route {
    std::string method;
    bool open = false;  // without a key
    Handler handler = nullptr;
  };

  ApiServer(const ApiOptions& options, const ApiModel& model, CompletionEngine& engine,
            std::unique_ptr<Worker> worker);
  static const std::map<std::string, Route>& Routes();
  static std::string RouteOf(const net::HttpRequest& request);
  // Before the body is read: the answer to a request that is not acted on.
  std::optional<net::HttpResponse> Refused(const net::HttpRequest& request);
  std::optional<net::HttpResponse> RefusalOf(const net::HttpRequest& request) const;
  void Handle(net::HttpRequest& request, const Reply& reply);
  bool Authorized(const net::HttpRequest& request) const;

  void Page(net::HttpRequest& request, const Reply& reply);
  void Health(net::HttpRequest& request, const Reply& reply);
  void HealthGenerate(net::HttpRequest& request, const Reply& reply);
  // Of /health/generate, once; ignored when it is answered already.
  void AnswerProbe(uint64_t number, bool made_token, const std::string& message);
  void Ready(net::HttpRequest& request, const Reply& reply);
  void MetricsText(net::HttpRequest& request, const Reply& reply);
  void Version(net::HttpRequest& request, const Reply& reply);
  void DebugState(net::HttpRequest& request, const Reply& reply);
  void Models(net::HttpRequest& request, const Reply& reply);
  void Tokenize(net::HttpRequest& request, const Reply& reply);
  void Detokenize(net::HttpRequest& request, const Reply& reply);
  void Completions(net::HttpRequest& request, const Reply& reply);
  void ChatCompletions(net::HttpRequest& request, const Reply& reply);

  void ReadBody(net::HttpRequest& request, const Reply& reply, BodyReader::Read read);
  void Generate(net::HttpRequest& request, const Reply& reply, Parse parse);
  void Run(ApiRequest request, TimePoint arrived, const Reply& reply);
  void Answer(const Reply& reply, net::HttpResponse response);
  BodyReader::Rest AnswerLater(net::HttpResponse response);
  void AnswerJsonObject(const Reply& reply, const json::object& object, int status = 200);

  const ApiOptions options_;
  const ApiModel model_;
  CompletionEngine& engine_;
  const int64_t started_;  // Unix seconds
  ApiMetrics metrics_;
  RunContext context_;
  BodyReader bodies_;
  std::set<std::string> fields_logged_;  // unknown ones, once each
  uint64_t next_id_ = 1;
  std::map<uint64_t, Reply> probes_;           // of /health/generate, unanswered
  std::atomic<bool> opened_{false};            // the mailbox is; requests wait for it
  std::unique_ptr<net::HttpService> service_;  // last: its thread uses all of the above
};

}  // namespace engram::compute
