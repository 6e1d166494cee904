#include "common/net/ucx/memory.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "common/base/crc32c.h"
#include "common/net/ucx/context.h"

namespace engram::net {
namespace {

struct KeyPrefix {
  char magic[4] = {'U', 'C', 'M', '1'};
  uint32_t crc32c = 0;  // of everything after this field
  uint64_t address = 0;
  uint64_t size_bytes = 0;
};
static_assert(sizeof(KeyPrefix) == 24);

uint32_t CrcOf(std::string_view key) {
  return Crc32c(std::as_bytes(std::span(key.substr(offsetof(KeyPrefix, address)))));
}

std::string EncodeKey(std::span<const std::byte> memory, std::string_view rkey) {
  KeyPrefix prefix;
  prefix.address = reinterpret_cast<uint64_t>(memory.data());
  prefix.size_bytes = memory.size();
  std::string key(reinterpret_cast<const char*>(&prefix), sizeof(prefix));
  key += rkey;
  const uint32_t crc = CrcOf(key);
  std::memcpy(key.data() + offsetof(KeyPrefix, crc32c), &crc, sizeof(crc));
  return key;
}

Result<KeyPrefix> ParseKey(std::string_view key) {
  KeyPrefix prefix;
  if (key.size() <= sizeof(prefix) ||
      std::memcmp(key.data(), prefix.magic, sizeof(prefix.magic)) != 0) {
    return InvalidArgument(fmt::format("{} bytes that are not a UCX memory key", key.size()));
  }
  std::memcpy(&prefix, key.data(), sizeof(prefix));
  if (CrcOf(key) != prefix.crc32c || prefix.address + prefix.size_bytes < prefix.address) {
    return InvalidArgument(fmt::format("damaged UCX memory key of {} bytes", key.size()));
  }
  return prefix;
}

}  // namespace

Result<std::shared_ptr<UcxRegion>> UcxRegion::Allocate(ucp_context_h context, size_t size_bytes) {
  ASSIGN_OR_RETURN(AlignedBuffer memory,
                   AlignedBuffer::Allocate(size_bytes, PageBacking::kTransparent));
  std::shared_ptr<UcxRegion> region(new UcxRegion(context, std::move(memory)));
  ucp_mem_map_params_t params = {};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  params.address = region->memory_.data();
  params.length = region->memory_.size_bytes();
  const ucs_status_t status = ucp_mem_map(context, &params, &region->handle_);
  if (status != UCS_OK) return UcxError("registering a buffer", status);
  return region;
}

UcxRegion::~UcxRegion() {
  if (handle_ != nullptr) ucp_mem_unmap(context_, handle_);
}

Result<std::unique_ptr<UcxSharedMemory>> UcxSharedMemory::Register(
    ucp_context_h context, std::span<const std::byte> memory) {
  std::unique_ptr<UcxSharedMemory> shared(new UcxSharedMemory(context));
  ucp_mem_map_params_t params = {};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_PROT;
  params.address = const_cast<std::byte*>(memory.data());  // for reading, as `prot` says
  params.length = memory.size();
  params.prot = UCP_MEM_MAP_PROT_LOCAL_READ | UCP_MEM_MAP_PROT_REMOTE_READ;
  ucs_status_t status = ucp_mem_map(context, &params, &shared->handle_);
  if (status != UCS_OK) {
    return UcxError(fmt::format("registering {} bytes for one-sided reads (raise the locked-memory "
                                "limit, ulimit -l, to at least that)",
                                memory.size()),
                    status);
  }
  void* rkey = nullptr;
  size_t rkey_bytes = 0;
  status = ucp_rkey_pack(context, shared->handle_, &rkey, &rkey_bytes);
  if (status != UCS_OK) return UcxError("packing a memory key", status);
  shared->key_ = EncodeKey(memory, {static_cast<const char*>(rkey), rkey_bytes});
  ucp_rkey_buffer_release(rkey);
  return shared;
}

UcxSharedMemory::~UcxSharedMemory() {
  if (handle_ != nullptr) ucp_mem_unmap(context_, handle_);
}

Result<std::unique_ptr<UcxRemoteMemory>> UcxRemoteMemory::Open(ucp_ep_h endpoint,
                                                               const std::string& key) {
  ASSIGN_OR_RETURN(const KeyPrefix prefix, ParseKey(key));
  std::unique_ptr<UcxRemoteMemory> memory(new UcxRemoteMemory(prefix.address, prefix.size_bytes));
  const ucs_status_t status =
      ucp_ep_rkey_unpack(endpoint, key.data() + sizeof(prefix), &memory->handle_);
  if (status != UCS_OK) return UcxError("opening a peer's memory", status);
  return memory;
}

UcxRemoteMemory::~UcxRemoteMemory() {
  if (handle_ != nullptr) ucp_rkey_destroy(handle_);
}

}  // namespace engram::net
