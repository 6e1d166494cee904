// What an HTTP page of a program under test answers, on one line.
#pragma once

#include <string>

#include "common/net/http/client.h"

namespace engram::testing_support {

// The body, a space and the status ("alive\n 200"), or the error's message.
inline std::string HttpGet(const std::string& address, const std::string& path) {
  const Result<net::HttpResponse> got = net::HttpGet(address, path, std::chrono::seconds(10));
  return got.ok() ? got->body + " " + std::to_string(got->status) : got.status().message();
}

}  // namespace engram::testing_support
