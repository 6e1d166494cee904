#include "common/net/ucx/worker.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/net/ucx/context.h"

namespace engram::net {

Result<std::unique_ptr<UcxWorker>> UcxWorker::Create(ucp_context_h context, size_t header_bytes,
                                                     ucp_am_recv_callback_t on_message,
                                                     void* argument) {
  std::unique_ptr<UcxWorker> worker(new UcxWorker());
  RETURN_IF_ERROR(worker->Open(context));
  RETURN_IF_ERROR(worker->Listen(on_message, argument));
  RETURN_IF_ERROR(worker->AskAddress(header_bytes));
  return worker;
}

UcxWorker::~UcxWorker() {
  if (handle_ != nullptr) ucp_worker_destroy(handle_);
}

Status UcxWorker::Open(ucp_context_h context) {
  ucp_worker_params_t params = {};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;  // made on one thread, used on another
  ucs_status_t status = ucp_worker_create(context, &params, &handle_);
  if (status != UCS_OK) return UcxError("creating a worker", status);
  status = ucp_worker_get_efd(handle_, &arrived_fd_);
  if (status != UCS_OK) return UcxError("asking for an event descriptor", status);
  wake_fd_ = OwnedFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (wake_fd_.get() < 0) return Unavailable(fmt::format("eventfd: {}", std::strerror(errno)));
  return OkStatus();
}

Status UcxWorker::Listen(ucp_am_recv_callback_t on_message, void* argument) {
  ucp_am_handler_param_t handler = {};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kUcxMessageId;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = on_message;
  handler.arg = argument;
  const ucs_status_t status = ucp_worker_set_am_recv_handler(handle_, &handler);
  return status == UCS_OK ? OkStatus() : UcxError("setting the message handler", status);
}

Status UcxWorker::AskAddress(size_t header_bytes) {
  ucp_worker_attr_t attributes = {};
  attributes.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS | UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER;
  const ucs_status_t status = ucp_worker_query(handle_, &attributes);
  if (status != UCS_OK) return UcxError("asking for the worker's address", status);
  address_.assign(reinterpret_cast<const char*>(attributes.address), attributes.address_length);
  ucp_worker_release_address(handle_, attributes.address);
  if (attributes.max_am_header >= header_bytes) return OkStatus();
  return Unavailable(fmt::format(
      "UCX: headers of at most {} bytes, {} are needed: raise UCX_TCP_TX_SEG_SIZE or the MTU",
      attributes.max_am_header, header_bytes));
}

void UcxWorker::Sleep(Nanos timeout) {
  // BUSY, or anything but OK: something arrived since the last Progress.
  if (ucp_worker_arm(handle_) != UCS_OK) return;
  pollfd entries[2] = {{arrived_fd_, POLLIN, 0}, {wake_fd_.get(), POLLIN, 0}};
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  const timespec limit = {seconds.count(), (timeout - seconds).count()};
  ::ppoll(entries, 2, &limit, nullptr);
  if ((entries[1].revents & POLLIN) != 0) {
    uint64_t count = 0;
    (void)!::read(wake_fd_.get(), &count, sizeof(count));
  }
}

void UcxWorker::WakeUp() {
  const uint64_t one = 1;
  (void)!::write(wake_fd_.get(), &one, sizeof(one));
}

}  // namespace engram::net
