#include "common/net/http/client.h"

#include <fmt/format.h>

#include <utility>

#include "common/net/http/exchange.h"

namespace engram::net {
namespace {

Result<HttpResponse> Get(const std::string& address, const std::string& path, Nanos timeout,
                         uint64_t body_bytes_max) {
  ASSIGN_OR_RETURN(const std::unique_ptr<HttpExchange> exchange,
                   HttpExchange::Open({address, nullptr, timeout}));
  ASSIGN_OR_RETURN(HttpResponse response, exchange->Ask({.path = path}));
  ASSIGN_OR_RETURN(response.body, exchange->Body(body_bytes_max));
  return response;
}

}  // namespace

Result<HttpResponse> HttpGet(const std::string& address, const std::string& path, Nanos timeout,
                             uint64_t body_bytes_max) {
  Result<HttpResponse> response = Get(address, path, timeout, body_bytes_max);
  if (response.ok()) return response;
  return response.status().WithContext(fmt::format("GET http://{}{}", address, path));
}

}  // namespace engram::net
