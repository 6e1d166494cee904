#include "memnode/node/random_name.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "common/net/tcp/challenge.h"

namespace engram::memnode {

std::string RandomName() { return fmt::format("{:02x}", fmt::join(net::RandomEndpointId(), "")); }

}  // namespace engram::memnode
