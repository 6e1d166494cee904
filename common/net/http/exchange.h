// One request to an HTTP/1.1 server, plain or by TLS, and its answer, on a connection of its own
// (Beast): blocking, with an end to every wait. What HttpGet (client.h) and the clients of foreign
// services are made of.
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/net/http/service.h"

namespace engram::net {

// PEM files. `ca` empty: the system's authorities. `certificate` and `key`: what the client shows;
// both or none.
struct HttpTlsFiles {
  std::string ca;
  std::string certificate;
  std::string key;
};
class HttpTls;  // loaded once, then used by any thread
// INVALID_ARGUMENT names the file.
Result<std::shared_ptr<const HttpTls>> LoadHttpTls(const HttpTlsFiles& files);

struct HttpDial {
  std::string address;                 // host:port
  std::shared_ptr<const HttpTls> tls;  // null: plain; else the server must prove to be the host
  Nanos timeout;                       // of the whole exchange, name look-up included
  std::stop_token stop = {};           // ends it at once, from any thread
};
struct HttpQuestion {
  std::string method = "GET";
  std::string path;  // with the query
  HttpHeaders headers = {};
  std::string body = {};
};

// Errors begin with the step ("connecting: ..."): DEADLINE_EXCEEDED, CANCELLED when stopped,
// RESOURCE_EXHAUSTED for an answer beyond its bound, INVALID_ARGUMENT for an address that is not
// host:port, else UNAVAILABLE; after one the exchange is over. One thread at a time.
class HttpExchange {
 public:
  // Nothing was asked when it fails.
  static Result<std::unique_ptr<HttpExchange>> Open(HttpDial dial);
  virtual ~HttpExchange() = default;

  // Sends the question and reads the head of the answer. Once.
  virtual Result<HttpResponse> Ask(const HttpQuestion& question) = 0;
  // The rest of the answer.
  virtual Result<std::string> Body(uint64_t bytes_max) = 0;
  // For answers without end: what comes next, "" when nothing does within `wait`, which stands in
  // for the timeout. A server that ends the answer is UNAVAILABLE.
  virtual Result<std::string> Piece(Nanos wait) = 0;
};

}  // namespace engram::net
