// The addresses of a host, within a deadline. Internal to common/net.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <stop_token>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/io/host_port.h"

namespace engram::net {

// Names that the resolver still works on after their callers gave up; with so many of them under
// way no other is looked up.
inline constexpr int kLookUpsMax = 16;

// A number is taken as it is. A name is looked up on a thread of its own, which is left behind when
// the resolver takes longer than the caller waits: it knows no deadline. DEADLINE_EXCEEDED,
// CANCELLED when stopped, RESOURCE_EXHAUSTED without such a thread, else UNAVAILABLE.
Result<std::vector<boost::asio::ip::tcp::endpoint>> LookUp(const io::HostPort& to,
                                                           TimePoint deadline,
                                                           const std::stop_token& stop);

}  // namespace engram::net
