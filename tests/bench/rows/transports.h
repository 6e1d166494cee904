// The wires a service can be measured over, by name.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/net/transport.h"

namespace engram::bench {

using TransportFactory = std::function<Result<std::unique_ptr<net::Transport>>()>;

// "ucx": UCX over TCP on lo. INVALID_ARGUMENT for a name there is none of.
Result<TransportFactory> TransportNamed(const std::string& name);

}  // namespace engram::bench
