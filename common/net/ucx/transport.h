// The real transport: UCX active messages, eager only, between workers whose addresses travelled
// over the control connection. For RDMA fabrics, and TCP between trusted hosts: UCX 1.13 can
// neither encrypt nor survive hostile bytes on its port.
#pragma once

#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/net/transport.h"

namespace engram::net {

struct UcxOptions {
  std::string tls = "tcp,self";
  std::string net_devices = "all";
  // Bytes received at once. UCX does not negotiate it and aborts when the sender's is larger, so it
  // is part of settings(). 128 KiB holds one reply of 480 rows of 264 bytes.
  size_t segment_bytes = 128 * 1024;
  // For tests without RDMA: Read works over every transport, at the cost of the owner's CPU.
  // one_sided() stays false.
  bool emulated_reads = false;
};

// UNAVAILABLE with UCX's own words when the transports or devices asked for do not exist here.
// one_sided() holds when `tls` names RDMA's reliable transports (rc, dc, their variants, ib) and,
// beside self and ud, nothing else: over tcp or shared memory UCX emulates reads with the owner's
// CPU. Only then, or with emulated_reads, can memory be shared and read.
Result<std::unique_ptr<Transport>> MakeUcxTransport(const UcxOptions& options);

}  // namespace engram::net
