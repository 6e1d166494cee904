// One GET of an HTTP/1.1 server, on a connection of its own (exchange.h): what the programs ask of
// each other's HTTP pages.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/net/http/service.h"

namespace engram::net {

inline constexpr uint64_t kHttpAnswerBytesMax = uint64_t{16} << 20;

// Any status that the server answers with is a response; its other headers are left out. `timeout`
// bounds everything. Errors name the address, the path and what
// was being done: DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED for a body beyond `body_bytes_max`,
// INVALID_ARGUMENT for an address that is not host:port, else UNAVAILABLE.
Result<HttpResponse> HttpGet(const std::string& address, const std::string& path, Nanos timeout,
                             uint64_t body_bytes_max = kHttpAnswerBytesMax);

}  // namespace engram::net
