// An HTTP/1.1 server (Beast) for requests with bodies and answers that take time or are streamed.
// One thread; handlers run on it and must not block. A client that goes away is noticed while its
// answer is being made.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace engram::net {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET", as sent
  std::string path;    // without the query, percent-decoded: any bytes but control characters
  std::string query;   // as sent
  std::string host;
  std::string origin;
  std::string authorization;
  std::string content_type;
  std::string content_encoding;
  bool has_body = false;  // one was announced
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  HttpHeaders headers = {};  // others
};

// Where the answer to one request goes: either Send, or StartStream, Write.., Finish. On the
// server's thread only (HttpService::Post); may outlive the connection and the server, and then
// does nothing. Destroyed unanswered it sends 500.
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  virtual void Send(HttpResponse response) = 0;
  virtual void StartStream(int status, const std::string& content_type,
                           const HttpHeaders& headers) = 0;
  // False when the client is gone, or was cut off because it left HttpLimits::unsent_bytes unread.
  virtual bool Write(std::string_view bytes) = 0;
  virtual void Finish() = 0;
  virtual bool gone() const = 0;
  // Called once if the client goes away before the answer is complete. A client that closes only
  // its sending side counts as gone.
  virtual void OnGone(std::function<void()> callback) = 0;
};

struct HttpLimits {
  // Beyond it a waiting connection gives way (room.h), else the newest is answered 503. At most a
  // quarter of the descriptors that the process may open.
  int connections = 256;
  uint32_t header_bytes = 16 * 1024;
  uint64_t body_bytes = 0;
  uint64_t bodies_bytes = 128 << 20;  // of all requests being read; beyond it 429
  int64_t unsent_bytes = 1 << 20;     // of a streamed answer
  int idle_seconds = 30;              // to send a request, and to take any part of an answer
};

// GET requests that are answered before others, also on a few connections beyond the limit, so that
// a flooded server is still seen to live.
inline constexpr std::string_view kVitalPaths[] = {"/health", "/ready"};

class HttpService {
 public:
  using Handler = std::function<void(HttpRequest request, std::shared_ptr<HttpReply> reply)>;
  // What a request that is not HTTP, too large or too many is answered with.
  using Refusal = std::function<HttpResponse(int status, const std::string& message)>;
  // Asked when the header has come, before a byte of the body is kept: the answer to a request that
  // is not to be read further.
  using Admit = std::function<std::optional<HttpResponse>(const HttpRequest& request)>;

  // ALREADY_EXISTS names the address when the port is taken. Port 0 picks one.
  static Result<std::unique_ptr<HttpService>> Start(const std::string& host, uint16_t port,
                                                    const HttpLimits& limits, Handler handler,
                                                    Refusal refusal, Admit admit = nullptr);
  virtual ~HttpService() = default;  // closes every connection and joins
  virtual uint16_t port() const = 0;
  // Whether every answer asked for so far is written. Not from the service's thread.
  virtual bool Idle() = 0;
  // Runs `task` on the server's thread, soon, in order. Thread-safe.
  virtual void Post(std::function<void()> task) = 0;
  // The same after a while; not when the server closes first.
  virtual void PostAfter(int64_t milliseconds, std::function<void()> task) = 0;
};

// "application/json" or "text/plain" errors are the caller's choice; this is the plain one.
HttpResponse PlainRefusal(int status, const std::string& message);

}  // namespace engram::net
