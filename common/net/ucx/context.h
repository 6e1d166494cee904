// UCX's statuses as ours, and a UCX context with our settings. Internal to common/net.
#pragma once

#include <ucp/api/ucp.h>

#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/net/ucx/transport.h"

namespace engram::net {

Status UcxError(std::string_view what, ucs_status_t status);

// Whether every transport that `tls` (UCX_TLS's syntax) may carry rows over answers a get in
// hardware: rc, dc, their variants, and "ib". "self" and the ud that rc needs for connecting do no
// harm. Anything else beside them (tcp, shared memory, "all") says no: a peer reached over it would
// have its gets emulated by messages, slowly and with its own CPU.
bool TlsIsOneSided(std::string_view tls);

struct UcxContext {
  ucp_context_h context = nullptr;  // for ucp_cleanup, by the caller
  bool one_sided = false;  // TlsIsOneSided, and this machine has a device for such a transport
};
Result<UcxContext> OpenUcxContext(const UcxOptions& options);

}  // namespace engram::net
