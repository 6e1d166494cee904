// Memory that UCX's devices may touch: our send buffers, what a process lets its peers read, and
// the same seen from a peer. Internal to common/net.
#pragma once

#include <ucp/api/ucp.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "common/net/transport.h"

namespace engram::net {

// Memory of our own, registered.
class UcxRegion {
 public:
  static Result<std::shared_ptr<UcxRegion>> Allocate(ucp_context_h context, size_t size_bytes);
  ~UcxRegion();
  std::span<std::byte> bytes() { return memory_.bytes(); }
  ucp_mem_h handle() const { return handle_; }

 private:
  UcxRegion(ucp_context_h context, AlignedBuffer memory)
      : context_(context), memory_(std::move(memory)) {}
  const ucp_context_h context_;
  AlignedBuffer memory_;
  ucp_mem_h handle_ = nullptr;
};

class UcxBuffer : public SendBuffer {
 public:
  explicit UcxBuffer(std::shared_ptr<UcxRegion> region) : region_(std::move(region)) {}
  std::span<std::byte> bytes() override { return region_->bytes(); }
  const std::shared_ptr<UcxRegion>& region() const { return region_; }

 private:
  // Shared with the reads under way: the device may still write when the reader has gone.
  const std::shared_ptr<UcxRegion> region_;
};

// The caller's memory, registered for peers to read. We ask for reading alone, but UCX 1.13 lets
// the device write as well: a peer that holds the key is trusted. Dies before its context.
class UcxSharedMemory {
 public:
  static Result<std::unique_ptr<UcxSharedMemory>> Register(ucp_context_h context,
                                                           std::span<const std::byte> memory);
  ~UcxSharedMemory();
  // Address, size and UCX's remote key, under a checksum: UCX does not survive a damaged key.
  const std::string& key() const { return key_; }

 private:
  explicit UcxSharedMemory(ucp_context_h context) : context_(context) {}
  const ucp_context_h context_;
  ucp_mem_h handle_ = nullptr;
  std::string key_;
};

// The memory behind a peer's key. Dies before its worker.
class UcxRemoteMemory {
 public:
  // INVALID_ARGUMENT for what is not a whole key.
  static Result<std::unique_ptr<UcxRemoteMemory>> Open(ucp_ep_h endpoint, const std::string& key);
  ~UcxRemoteMemory();
  uint64_t address() const { return address_; }
  uint64_t size_bytes() const { return size_bytes_; }
  ucp_rkey_h handle() const { return handle_; }

 private:
  UcxRemoteMemory(uint64_t address, uint64_t size_bytes)
      : address_(address), size_bytes_(size_bytes) {}
  const uint64_t address_;
  const uint64_t size_bytes_;
  ucp_rkey_h handle_ = nullptr;
};

}  // namespace engram::net
