#include "compute/api/api_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <ctime>

#include "common/obs/log.h"
#include "compute/api/page/page.h"

namespace engram::compute {
namespace {

constexpr std::string_view kVersion = ENGRAM_VERSION;
constexpr size_t kFieldsLoggedMax = 1000;
constexpr size_t kProbesMax = 4;  // at once: they go before the queue

constexpr std::string_view kModelPrefix = "/v1/models/";

std::string_view MediaType(std::string_view content_type) {
  std::string_view type = content_type.substr(0, content_type.find(';'));
  while (type.ends_with(' ') || type.ends_with('\t')) type.remove_suffix(1);
  return type;
}

bool SameLetter(unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); }

bool Equal(std::string_view a, std::string_view b) { return std::ranges::equal(a, b, SameLetter); }

// Bodies are JSON, also where curl says its usual "application/x-www-form-urlencoded".
bool MayBeJson(std::string_view content_type) {
  const std::string_view type = MediaType(content_type);
  const bool json = !std::ranges::search(type, std::string_view("json"), SameLetter).empty();
  return json || type.empty() || Equal(type, "application/x-www-form-urlencoded") ||
         Equal(type, "text/plain");
}

// A page of another site asks, through its visitor's browser.
bool IsForeign(const net::HttpRequest& request) {
  if (request.origin.empty()) return false;
  const size_t scheme = request.origin.find("://");
  return scheme == std::string::npos ||
         !Equal(std::string_view(request.origin).substr(scheme + 3), request.host);
}

net::HttpResponse JsonResponse(const json::object& object, int status = 200) {
  return {status, "application/json", json::serialize(object) + "\n"};
}

net::HttpResponse TokenizeResponse(const std::string& body, const ApiModel& model) {
  std::vector<int32_t> ids;
  if (const ApiError error = ParseTokenize(body, model, ids); !error.ok()) {
    return ErrorResponse(error);
  }
  return JsonResponse({{"count", ids.size()},
                       {"max_model_len", model.positions_max},
                       {"tokens", json::array(ids.begin(), ids.end())}});
}

net::HttpResponse DetokenizeResponse(const std::string& body, const ApiModel& model) {
  std::vector<int32_t> ids;
  if (const ApiError error = ParseDetokenize(body, model, ids); !error.ok()) {
    return ErrorResponse(error);
  }
  const Result<std::string> bytes = model.tokenizer->Decode(ids);
  if (!bytes.ok()) return ErrorResponse(FieldError("tokens", bytes.status().message()));
  return JsonResponse({{"prompt", text::ReplaceInvalidUtf8(*bytes)}});
}

bool SameSecret(std::string_view a, std::string_view b) {
  unsigned char differs = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    differs = static_cast<unsigned char>(differs | (a[i] ^ b[i]));
  }
  return differs == 0;
}

}  // namespace

const std::map<std::string, ApiServer::Route>& ApiServer::Routes() {
  static const std::map<std::string, Route> routes = {
      {"/", {"GET", true, &ApiServer::Page}},
      {"/health", {"GET", true, &ApiServer::Health}},
      {"/ready", {"GET", true, &ApiServer::Ready}},
      {"/metrics", {"GET", true, &ApiServer::MetricsText}},
      {"/version", {"GET", true, &ApiServer::Version}},
      {"/health/generate", {"GET", false, &ApiServer::HealthGenerate}},
      {"/debug/state", {"GET", false, &ApiServer::DebugState}},
      {"/v1/models", {"GET", false, &ApiServer::Models}},
      {"/tokenize", {"POST", false, &ApiServer::Tokenize}},
      {"/detokenize", {"POST", false, &ApiServer::Detokenize}},
      {"/v1/completions", {"POST", false, &ApiServer::Completions}},
      {"/v1/chat/completions", {"POST", false, &ApiServer::ChatCompletions}},
  };
  return routes;
}

ApiServer::ApiServer(const ApiOptions& options, const ApiModel& model, CompletionEngine& engine,
                     std::unique_ptr<Worker> worker)
    : options_(options),
      model_(model),
      engine_(engine),
      started_(std::time(nullptr)),
      context_{&engine, model.tokenizer, std::make_shared<Mailbox>(), &metrics_},
      bodies_(std::move(worker), context_.mailbox, &metrics_) {
  metrics_.TellTables(model.name, model.tables);
  context_.keep_alive_ms = options.keep_alive_ms;
  context_.request_timeout_s = options.request_timeout_s;
}

Result<std::unique_ptr<ApiServer>> ApiServer::Start(const ApiOptions& options,
                                                    const ApiModel& model, CompletionEngine& engine,
                                                    std::unique_ptr<Worker> worker) {
  std::unique_ptr<ApiServer> server(new ApiServer(options, model, engine, std::move(worker)));
  ApiServer* const raw = server.get();
  const auto handle = [raw](net::HttpRequest request, const Reply& reply) {
    raw->opened_.wait(false);  // for the lines below, at the first request only
    raw->Handle(request, reply);
  };
  const auto refuse = [](int status, const std::string& message) {
    return ErrorResponse({status, message, "", ""});
  };
  const auto admit = [raw](const net::HttpRequest& request) { return raw->Refused(request); };
  ASSIGN_OR_RETURN(
      server->service_,
      net::HttpService::Start(options.host, options.port, options.limits, handle, refuse, admit));
  server->context_.mailbox->Open(server->service_.get());
  server->opened_ = true;
  server->opened_.notify_all();
  return server;
}

ApiServer::~ApiServer() {
  context_.mailbox->Close();  // the engine and the worker may go on; their posts are dropped
  service_.reset();
}

bool ApiServer::Authorized(const net::HttpRequest& request) const {
  static constexpr std::string_view kBearer = "Bearer ";  // a scheme's name has no case
  if (options_.key.empty()) return true;
  const std::string_view given = request.authorization;
  return Equal(given.substr(0, kBearer.size()), kBearer) &&
         SameSecret(given.substr(kBearer.size()), options_.key);
}

std::string ApiServer::RouteOf(const net::HttpRequest& request) {
  return request.path.starts_with(kModelPrefix) ? "/v1/models" : request.path;
}

std::optional<net::HttpResponse> ApiServer::Refused(const net::HttpRequest& request) {
  std::optional<net::HttpResponse> refusal = RefusalOf(request);
  if (refusal) metrics_.Answered(refusal->status);
  return refusal;
}

std::optional<net::HttpResponse> ApiServer::RefusalOf(const net::HttpRequest& request) const {
  const auto found = Routes().find(RouteOf(request));
  if (found == Routes().end()) {
    return ErrorResponse({404,
                          fmt::format("no such path: {}", text::ReplaceInvalidUtf8(request.path)),
                          "", "unknown_path"});
  }
  const Route& route = found->second;
  const bool head = request.method == "HEAD" && route.method == "GET";
  if (request.method != route.method && !head) {
    net::HttpResponse refusal = ErrorResponse(
        {405, fmt::format("{} takes {}, not {}", found->first, route.method, request.method), "",
         "method_not_allowed"});
    refusal.headers.emplace_back("Allow", route.method);
    return refusal;
  }
  if (!route.open && !Authorized(request)) {
    return ErrorResponse({401, "the API key is missing or wrong", "", "invalid_api_key"});
  }
  if (route.method != "POST") {
    if (!request.has_body) return std::nullopt;
    return ErrorResponse({413, fmt::format("{} takes no body", found->first), "", "no_body"});
  }
  // A browser asks the server before it sends another site's JSON, but not for these other types.
  const bool only_json = options_.key.empty() && IsForeign(request);
  if (only_json ? !Equal(MediaType(request.content_type), "application/json")
                : !MayBeJson(request.content_type)) {
    return ErrorResponse({415,
                          fmt::format("{} takes application/json, not {:.100}", found->first,
                                      text::ReplaceInvalidUtf8(request.content_type)),
                          "", "unsupported_media_type"});
  }
  if (!request.content_encoding.empty() && !Equal(request.content_encoding, "identity")) {
    return ErrorResponse(
        {415,
         fmt::format("{} takes a body as it is, not Content-Encoding: {:.100}", found->first,
                     text::ReplaceInvalidUtf8(request.content_encoding)),
         "", "unsupported_content_encoding"});
  }
  return std::nullopt;
}

void ApiServer::Handle(net::HttpRequest& request, const Reply& reply) {
  (this->*Routes().at(RouteOf(request)).handler)(request, reply);
}

void ApiServer::Answer(const Reply& reply, net::HttpResponse response) {
  metrics_.Answered(response.status);
  reply->Send(std::move(response));
}

BodyReader::Rest ApiServer::AnswerLater(net::HttpResponse response) {
  return [this, response = std::move(response)](const Reply& reply) mutable {
    Answer(reply, std::move(response));
  };
}

void ApiServer::AnswerJsonObject(const Reply& reply, const json::object& object, int status) {
  Answer(reply, JsonResponse(object, status));
}

void ApiServer::Page(net::HttpRequest&, const Reply& reply) {
  net::HttpResponse page{200, "text/html; charset=utf-8", std::string(PageHtml())};
  page.headers = {{"Content-Security-Policy",
                   "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                   "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'"},
                  {"X-Content-Type-Options", "nosniff"},
                  {"Cache-Control", "no-cache"}};
  Answer(reply, std::move(page));
}

void ApiServer::Health(net::HttpRequest&, const Reply& reply) {
  AnswerJsonObject(reply, {{"status", "alive"}});
}

void ApiServer::Ready(net::HttpRequest&, const Reply& reply) {
  const EngineSnapshot snapshot = engine_.Snapshot();
  if (snapshot.draining) return AnswerJsonObject(reply, {{"status", "draining"}}, 503);
  json::array down, degraded;
  for (const client::SourceStats::Node& node : snapshot.rows.nodes) {
    if (node.status.ok()) continue;
    down.emplace_back(node.name);
    degraded.emplace_back(node.status.message());
  }
  if (!snapshot.memory.ok()) {
    return AnswerJsonObject(reply,
                            {{"status", "memory"},
                             {"message", snapshot.memory.message()},
                             {"nodes_down", std::move(down)}},
                            503);
  }
  json::object answer = {{"status", "ready"}};
  if (!degraded.empty()) {  // every row has another owner
    answer["degraded"] = std::move(degraded);
    answer["nodes_down"] = std::move(down);
  }
  AnswerJsonObject(reply, answer);
}

void ApiServer::HealthGenerate(net::HttpRequest&, const Reply& reply) {
  if (probes_.size() >= kProbesMax) {
    return Answer(reply, ErrorResponse({429, fmt::format("{} probes are under way", kProbesMax), "",
                                        "too_many_probes"}));
  }
  CompletionRequest probe;
  probe.is_probe = true;
  probe.prompt = {0};
  probe.tokens_max = 1;
  probe.sampling.temperature = 0;
  probe.deadline = context_.clock->Now() + std::chrono::milliseconds(options_.probe_timeout_ms);
  const uint64_t number = next_id_++;
  const Result<uint64_t> id = engine_.Submit(
      std::move(probe), [this, number, mailbox = context_.mailbox](const Update& update) {
        if (!update.finish) return;
        const FinishReason reason = update.finish->reason;
        const std::string message = update.finish->status.message();
        const bool made = reason == FinishReason::kStop || reason == FinishReason::kLength;
        mailbox->Post([this, number, made, message] { AnswerProbe(number, made, message); });
      });
  if (!id.ok()) return Answer(reply, ErrorResponse(ErrorOf(id.status())));
  probes_[number] = reply;
  // An engine that hangs does not see its requests' deadlines either.
  context_.mailbox->PostAfter(options_.probe_timeout_ms, [this, id = *id, number] {
    if (!probes_.contains(number)) return;
    engine_.Cancel(id);
    AnswerProbe(number, false,
                fmt::format("the engine made no token in {} ms", options_.probe_timeout_ms));
  });
}

void ApiServer::AnswerProbe(uint64_t number, bool made_token, const std::string& message) {
  const auto found = probes_.extract(number);
  if (found.empty()) return;  // answered already
  if (made_token) return AnswerJsonObject(found.mapped(), {{"status", "generating"}});
  AnswerJsonObject(found.mapped(), {{"status", "failed"}, {"message", message}}, 503);
}

void ApiServer::MetricsText(net::HttpRequest&, const Reply& reply) {
  reply->Send({200, "text/plain; version=0.0.4; charset=utf-8", metrics_.Text(engine_.Snapshot())});
}

void ApiServer::Version(net::HttpRequest&, const Reply& reply) {
  const TablesInfo& tables = model_.tables;
  json::object answer{{"version", kVersion}, {"model", model_.name}};
  if (tables.any) {
    answer["tables"] = {{"source", tables.remote ? "memory nodes" : "model folder"},
                        {"version", tables.version},
                        {"content_digest", tables.content_digest},
                        {"compared", tables.compared}};
  }
  AnswerJsonObject(reply, answer);
}

void ApiServer::DebugState(net::HttpRequest&, const Reply& reply) {
  reply->Send(JsonResponse(SnapshotJson(engine_.Snapshot())));
}

void ApiServer::Models(net::HttpRequest& request, const Reply& reply) {
  const json::object model{{"id", model_.name},
                           {"object", "model"},
                           {"created", started_},
                           {"owned_by", "engram-mesh"},
                           {"max_model_len", model_.positions_max}};
  if (request.path == "/v1/models") {
    return AnswerJsonObject(reply, {{"object", "list"}, {"data", json::array{model}}});
  }
  const std::string name = text::ReplaceInvalidUtf8(request.path.substr(kModelPrefix.size()));
  if (name == model_.name) return AnswerJsonObject(reply, model);
  Answer(reply, ErrorResponse({404, fmt::format("the model \"{}\" does not exist here", name),
                               "model", "model_not_found"}));
}

void ApiServer::ReadBody(net::HttpRequest& request, const Reply& reply, BodyReader::Read read) {
  if (bodies_.Take(std::move(request.body), reply, std::move(read))) return;
  Answer(reply, ErrorResponse({429, "too many large requests are being read; try again later", "",
                               "queue_full"}));
}

void ApiServer::Tokenize(net::HttpRequest& request, const Reply& reply) {
  ReadBody(request, reply,
           [this](const std::string& body) { return AnswerLater(TokenizeResponse(body, model_)); });
}

void ApiServer::Detokenize(net::HttpRequest& request, const Reply& reply) {
  ReadBody(request, reply, [this](const std::string& body) {
    return AnswerLater(DetokenizeResponse(body, model_));
  });
}

void ApiServer::Completions(net::HttpRequest& request, const Reply& reply) {
  Generate(request, reply, ParseCompletion);
}

void ApiServer::ChatCompletions(net::HttpRequest& request, const Reply& reply) {
  Generate(request, reply, ParseChat);
}

void ApiServer::Generate(net::HttpRequest& request, const Reply& reply, Parse parse) {
  const TimePoint arrived = context_.clock->Now();
  ReadBody(request, reply, [this, parse, arrived](const std::string& body) -> BodyReader::Rest {
    ApiRequest parsed;
    const ApiError error = parse(body, model_, parsed);
    if (!error.ok()) return AnswerLater(ErrorResponse(error));
    return [this, arrived, parsed = std::move(parsed)](const Reply& to) mutable {
      Run(std::move(parsed), arrived, to);
    };
  });
}

void ApiServer::Run(ApiRequest request, TimePoint arrived, const Reply& reply) {
  for (const std::string& field : request.unknown_fields) {
    if (fields_logged_.size() < kFieldsLoggedMax && fields_logged_.insert(field).second) {
      obs::LogWarn(fmt::format("request field ignored field={}",
                               json::serialize(json::string(field.substr(0, 100)))));
    }
  }
  AnswerHead head{
      fmt::format("{}-{:x}-{}", request.chat ? "chatcmpl" : "cmpl", started_, next_id_++),
      model_.name, std::time(nullptr), request.chat, request.seed};
  std::make_shared<CompletionRun>(context_, std::move(head), std::move(request), arrived, reply)
      ->Start();
}

}  // namespace engram::compute
