// Exact-path GET routes over HttpService: for health, readiness and metrics; runs on its own
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/net/http/service.h"

namespace engram::net {

class HttpServer {
 public:
  // Called on the server's thread; must not block.
  using Handler = std::function<HttpResponse()>;

  inline static constexpr int kConnectionsMax = 256;  // HttpLimits::connections
  inline static constexpr int kRequestBytesMax = 16 * 1024;
  inline static constexpr int kIdleSecondsMax = 30;

  // GET routes by exact path; anything else is 404, another method 405. ALREADY_EXISTS names the
  // address when the port is taken. Port 0 picks one.
  static Result<std::unique_ptr<HttpServer>> Start(const std::string& host, uint16_t port,
                                                   std::map<std::string, Handler> routes);
  virtual ~HttpServer() = default;  // closes every connection and joins
  virtual uint16_t port() const = 0;
};

}  // namespace engram::net
