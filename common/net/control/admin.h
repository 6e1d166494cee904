// A tool's calls to a memory node, over its control port: the same challenge and TLS as a client's
// connection, then one request and one reply. Commands: memnode/node/admin_service.h.
//
// A node answers tools only when their peer has proven the cluster's secret or shown a certificate
// of the cluster, or when both the address listened on and the peer's are loopback addresses. A
// request whose tool has hung up before the node came to it is not carried out.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/io/json.h"
#include "common/net/tcp/security.h"

namespace engram::net {

// UNAVAILABLE, DEADLINE_EXCEEDED: the node; else the node's own refusal. All name the node.
// INVALID_ARGUMENT when the request does not fit a frame.
Result<json::object> CallNode(const std::string& host, uint16_t port, const json::object& request,
                              Nanos timeout, const Security* security = nullptr);

}  // namespace engram::net
