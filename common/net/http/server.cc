#include "common/net/http/server.h"

#include <fmt/format.h>

namespace engram::net {
namespace {

using Routes = std::map<std::string, HttpServer::Handler>;

std::optional<HttpResponse> Refused(const Routes& routes, const HttpRequest& request) {
  if (!routes.contains(request.path)) {
    return PlainRefusal(404, fmt::format("no such path: {}", request.path));
  }
  if (request.method != "GET" && request.method != "HEAD") {
    HttpResponse refusal = PlainRefusal(405, "only GET is allowed here");
    refusal.headers = {{"Allow", "GET, HEAD"}};
    return refusal;
  }
  return std::nullopt;
}

class RouteServer : public HttpServer {
 public:
  explicit RouteServer(std::unique_ptr<HttpService> service) : service_(std::move(service)) {}
  uint16_t port() const override { return service_->port(); }

 private:
  const std::unique_ptr<HttpService> service_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& host, uint16_t port,
                                                      std::map<std::string, Handler> routes) {
  HttpLimits limits;
  limits.connections = kConnectionsMax;
  limits.header_bytes = kRequestBytesMax;
  limits.body_bytes = 0;  // a GET has none
  limits.idle_seconds = kIdleSecondsMax;
  const auto shared = std::make_shared<const Routes>(std::move(routes));  // of two callbacks
  ASSIGN_OR_RETURN(
      std::unique_ptr<HttpService> service,
      HttpService::Start(
          host, port, limits,
          [shared](const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
            reply->Send(shared->at(request.path)());
          },
          PlainRefusal,
          [shared](const HttpRequest& request) { return Refused(*shared, request); }));
  return std::unique_ptr<HttpServer>(std::make_unique<RouteServer>(std::move(service)));
}

}  // namespace engram::net
