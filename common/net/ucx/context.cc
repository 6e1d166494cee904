#include "common/net/ucx/context.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

namespace engram::net {
namespace {

// Answer gets without the owner's CPU.
constexpr std::array<std::string_view, 9> kOneSidedTransports = {
    "ib", "rc", "rc_v", "rc_verbs", "rc_x", "rc_mlx5", "dc", "dc_x", "dc_mlx5"};
// Carry no gets beside those: a process's own, and what rc connects through.
constexpr std::array<std::string_view, 7> kHarmlessTransports = {
    "self", "ud", "ud_v", "ud_verbs", "ud_x", "ud_mlx5", "rdmacm"};
// A peer whose device leaves a packet and its repetitions unacknowledged is lost, here after about
// half a second; by UCX's own 1 s and 7 it would take 8 s, and never with SoftRoCE, which repeats
// for ever when told 7. A stopped process is not lost: its device still answers.
constexpr const char* kPacketTimeout = "60ms";
constexpr const char* kPacketRepetitions = "6";

template <typename Visit>
void ForEachName(std::string_view tls, Visit visit) {
  while (!tls.empty()) {
    const size_t comma = std::min(tls.find(','), tls.size());
    visit(tls.substr(0, comma));
    tls.remove_prefix(std::min(comma + 1, tls.size()));
  }
}

template <size_t n>
bool Contains(const std::array<std::string_view, n>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// UCX 1.13 tells only in print which transports it found devices for: "... -- rc_verbs/mlx5_0:1".
bool HasOneSidedDevice(ucp_context_h context) {
  char* text = nullptr;
  size_t size = 0;
  FILE* stream = ::open_memstream(&text, &size);
  if (stream == nullptr) return false;
  ucp_context_print_info(context, stream);
  std::fclose(stream);
  const std::unique_ptr<char, void (*)(void*)> owner(text, &std::free);
  const std::string_view info(text, size);
  return info.find(" rc_") != std::string_view::npos || info.find(" dc_") != std::string_view::npos;
}

Status Configure(ucp_config_t* config, const UcxOptions& options) {
  const std::string segment = std::to_string(options.segment_bytes);
  // Eager only: a rendezvous reply would cost a round trip, and our handler refuses it. Zero copy
  // from 1 KiB: by default 63 KB messages are copied through 8 KB pieces, three times slower.
  std::vector<std::pair<const char*, const char*>> settings = {
      {"TLS", options.tls.c_str()}, {"NET_DEVICES", options.net_devices.c_str()},
      {"RNDV_THRESH", "inf"},       {"ZCOPY_THRESH", "1k"},
      {"PROTO_ENABLE", "n"},
  };
  // UCX warns of settings that no transport takes.
  if (TlsIsOneSided(options.tls)) {
    settings.emplace_back("RC_TIMEOUT", kPacketTimeout);
    settings.emplace_back("RC_RETRY_COUNT", kPacketRepetitions);
  } else {
    settings.emplace_back("RX_SEG_SIZE", segment.c_str());
  }
  for (const auto& [key, value] : settings) {
    const ucs_status_t status = ucp_config_modify(config, key, value);
    if (status != UCS_OK) return UcxError(fmt::format("setting {}={}", key, value), status);
  }
  return OkStatus();
}

}  // namespace

Status UcxError(std::string_view what, ucs_status_t status) {
  return Unavailable(fmt::format("UCX: {}: {}", what, ucs_status_string(status)));
}

bool TlsIsOneSided(std::string_view tls) {
  bool one_sided = false, other = false;
  ForEachName(tls, [&](std::string_view name) {
    if (Contains(kOneSidedTransports, name)) {
      one_sided = true;
    } else if (!Contains(kHarmlessTransports, name)) {
      other = true;
    }
  });
  return one_sided && !other;
}

Result<UcxContext> OpenUcxContext(const UcxOptions& options) {
  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK) return UcxError("reading its configuration", status);
  const std::unique_ptr<ucp_config_t, void (*)(ucp_config_t*)> owner(config, &ucp_config_release);
  RETURN_IF_ERROR(Configure(config, options));
  const bool one_sided = TlsIsOneSided(options.tls);
  ucp_params_t params = {};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  if (one_sided || options.emulated_reads) params.features |= UCP_FEATURE_RMA;
  UcxContext opened;
  status = ucp_init(&params, config, &opened.context);
  if (status != UCS_OK) {
    return UcxError(fmt::format("starting with transports \"{}\" on devices \"{}\"", options.tls,
                                options.net_devices),
                    status);
  }
  opened.one_sided = one_sided;
  if (one_sided && !HasOneSidedDevice(opened.context)) {
    ucp_cleanup(opened.context);
    return Unavailable(fmt::format(
        "UCX found no RDMA device for transports \"{}\" on devices \"{}\": see ibv_devices and "
        "ucx_info -d, or use transports \"tcp,self\"",
        options.tls, options.net_devices));
  }
  return opened;
}

}  // namespace engram::net
