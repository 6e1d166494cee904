// Parses the header of one HTTP request strictly (RFC 9112): what has two readings is refused, so
// that no part of a request runs as the next one. Internal to common/net.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "common/net/http/service.h"

namespace engram::net {

struct HttpHead {
  HttpRequest request;  // all but the body
  bool is_1_1 = false;
  bool keep_alive = false;
  bool awaits_continue = false;
  bool chunked = false;  // else the body is of `length` bytes
  uint64_t length = 0;
  bool has_body() const { return chunked || length > 0; }
};

// Why a request is refused; its connection is closed.
struct HttpFault {
  int status = 400;
  std::string message;
};

// `text` ends with the header's empty line.
std::variant<HttpHead, HttpFault> ParseHttpHead(std::string_view text);

// Where the header at the front of `text` ends, behind its empty line; npos when that has not
// arrived. Looks from `from` on, where an earlier call that found nothing ended.
size_t FindHeadEnd(std::string_view text, size_t from);
// False when no header goes on as `text` does from `from` on: a bare line feed, or a control
// character.
bool MayBeHead(std::string_view text, size_t from);

}  // namespace engram::net
