#include "compute/api/api_error.h"

namespace engram::compute {
namespace {

const char* TypeOf(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

json::value OrNull(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

}  // namespace

ApiError FieldError(std::string_view field, std::string message) {
  return {400, std::move(message), std::string(field), "invalid_value"};
}

ApiError ErrorOf(const Status& status) {
  const std::string& message = status.message();
  switch (status.code()) {
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
    case Code::kNotFound:
      return {400, message, "", "invalid_value"};
    case Code::kResourceExhausted:
      return {429, message, "", "queue_full"};
    case Code::kUnavailable:
    case Code::kDataLoss:
    case Code::kFailedPrecondition:
      return {503, message, "", "unavailable"};
    case Code::kDeadlineExceeded:
      return {504, message, "", "deadline_exceeded"};
    case Code::kCancelled:
      return {503, message, "", "aborted"};
    default:
      return {500, message, "", "internal_error"};
  }
}

json::object ErrorJson(const ApiError& error) {
  return {{"error",
           {{"message", error.message},
            {"type", TypeOf(error.status)},
            {"param", OrNull(error.param)},
            {"code", OrNull(error.code)}}}};
}

net::HttpResponse ErrorResponse(const ApiError& error) {
  net::HttpResponse response{error.status, "application/json",
                             json::serialize(ErrorJson(error)) + "\n"};
  if (error.status == 429 || error.status == 503) response.headers = {{"Retry-After", "1"}};
  return response;
}

}  // namespace engram::compute
