// A UCX transport's address: its random id, then its worker's address, under a checksum, because
// ucp_ep_create does not survive a damaged worker address. Internal to common/net.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/status.h"

namespace engram::net {

struct UcxAddress {
  uint64_t id = 0;  // starts every message, so that the receiver knows the sender
  std::string worker;
};

std::string EncodeUcxAddress(const UcxAddress& address);
Result<UcxAddress> ParseUcxAddress(std::string_view text);

}  // namespace engram::net
