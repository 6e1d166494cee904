// A UCX worker: what has an address, receives our one active message, and can be slept on. Internal
// to common/net; its owner's thread, except WakeUp.
#pragma once

#include <ucp/api/ucp.h>

#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/owned_fd.h"
#include "common/base/status.h"

namespace engram::net {

inline constexpr unsigned kUcxMessageId = 0;  // of our one active message

class UcxWorker {
 public:
  // `on_message` gets whole messages, with `argument`. UNAVAILABLE when headers of `header_bytes`
  // do not fit the transports.
  static Result<std::unique_ptr<UcxWorker>> Create(ucp_context_h context, size_t header_bytes,
                                                   ucp_am_recv_callback_t on_message,
                                                   void* argument);
  ~UcxWorker();
  ucp_worker_h handle() const { return handle_; }
  const std::string& address() const { return address_; }  // UCX's own
  unsigned Progress() { return ucp_worker_progress(handle_); }
  // Until something may have arrived, WakeUp, or `timeout`.
  void Sleep(Nanos timeout);
  void WakeUp();

 private:
  UcxWorker() = default;
  Status Open(ucp_context_h context);
  Status Listen(ucp_am_recv_callback_t on_message, void* argument);
  Status AskAddress(size_t header_bytes);

  ucp_worker_h handle_ = nullptr;
  int arrived_fd_ = -1;  // UCX's
  OwnedFd wake_fd_;
  std::string address_;
};

}  // namespace engram::net
