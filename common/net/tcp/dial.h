// The side that dials: connecting, TLS and the challenge within one deadline, blocking. Used for
// data sockets and by the control client. Internal to common/net.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/net/tcp/challenge.h"
#include "common/net/tcp/stream.h"

namespace engram::net {

// Connects to the first of the host's addresses that answers.
Result<TcpStream> DialTcp(const std::string& host, uint16_t port, TimePoint deadline);

// TLS, if `security` has it, and the challenge as its dialer.
Status Introduce(TcpStream& stream, const Security& security, ChallengePurpose purpose,
                 const EndpointId& own, const EndpointId& wanted, TimePoint deadline);

// All of `bytes`; `step` names what was being done in errors.
Status WriteAll(TcpStream& stream, std::string_view bytes, TimePoint deadline,
                std::string_view step);
Status ReadAll(TcpStream& stream, std::span<char> bytes, TimePoint deadline, std::string_view step);

}  // namespace engram::net
