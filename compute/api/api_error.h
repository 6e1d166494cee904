// Errors as OpenAI's clients know them: {"error":{"message","type","param","code"}} under an HTTP
// status.
#pragma once

#include <string>

#include "common/base/status.h"
#include "common/io/json.h"
#include "common/net/http/service.h"

namespace engram::compute {

struct ApiError {
  int status = 200;  // of HTTP; 200: no error
  std::string message;
  std::string param;  // the field at fault; empty: null
  std::string code;   // empty: null

  bool ok() const { return status == 200; }
};

// 400 for a field of a request.
ApiError FieldError(std::string_view field, std::string message);

// What an engine's error means to a client: 400 bad input, 429 queue full, 503 draining or rows
// that did not come, 504 deadline, 500 anything else.
ApiError ErrorOf(const Status& status);

json::object ErrorJson(const ApiError& error);
// With Retry-After for 429 and 503.
net::HttpResponse ErrorResponse(const ApiError& error);

}  // namespace engram::compute
