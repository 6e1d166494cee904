#include "common/net/http_server.h"

#include <fmt/format.h>

namespace engram::net {
namespace {

using Routes = std::map<std::string, HttpServer::Handler>;

HttpResponse Route(const Routes& routes, const HttpRequest& request) {
  const auto route = routes.find(request.path);
  if (route == routes.end()) {
    return PlainRefusal(404, fmt::format("no such path: {}", request.path));
  }
  if (request.method != "GET" && request.method != "HEAD") {
    HttpResponse refusal = PlainRefusal(405, "only GET is allowed here");
    refusal.headers = {{"Allow", "GET, HEAD"}};
    return refusal;
  }
  return route->second();
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
  ASSIGN_OR_RETURN(std::unique_ptr<HttpService> service,
                   HttpService::Start(
                       host, port, limits,
                       [routes = std::move(routes)](const HttpRequest& request,
                                                    const std::shared_ptr<HttpReply>& reply) {
                         reply->Send(Route(routes, request));
                       },
                       PlainRefusal));
  return std::unique_ptr<HttpServer>(std::make_unique<RouteServer>(std::move(service)));
}

}  // namespace engram::net
