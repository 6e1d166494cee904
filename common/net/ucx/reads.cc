#include "common/net/ucx/reads.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/net/ucx/context.h"

namespace engram::net {
namespace {

// Enough to hide a network round trip behind 264-byte reads; devices take 16 and more at a time.
constexpr size_t kGetsUnderWayMax = 128;
constexpr size_t kReadsMax = 4096;  // live, per peer

}  // namespace

Status UcxReads::Open(ucp_ep_h endpoint, const std::string& key) {
  if (memory_ != nullptr) return FailedPrecondition("this peer's memory is open already");
  ASSIGN_OR_RETURN(memory_, UcxRemoteMemory::Open(endpoint, key));
  endpoint_ = endpoint;
  return OkStatus();
}

Status UcxReads::Add(std::span<const ReadPiece> pieces, std::shared_ptr<UcxRegion> into,
                     std::function<void(Status)> done) {
  if (!failed_.ok()) return failed_;
  if (memory_ == nullptr) return Unavailable("no memory of this peer was opened for reading");
  if (live_ >= kReadsMax) {
    return ResourceExhausted(fmt::format("{} reads from this peer are under way", kReadsMax));
  }
  const uint64_t size = memory_->size_bytes();
  for (const ReadPiece& piece : pieces) {
    CHECK_LE(uint64_t{piece.into_offset} + piece.bytes, into->bytes().size());
    if (piece.bytes > size || piece.offset > size - piece.bytes) {
      return OutOfRange(fmt::format("read of {} bytes at offset {} of the peer's {} bytes",
                                    piece.bytes, piece.offset, size));
    }
  }
  if (free_.empty()) {
    operations_.push_back(std::make_unique<Operation>());
    operations_.back()->reads = this;
    for (auto* list : {&free_, &finished_, &delivering_}) list->reserve(operations_.size());
    free_.push_back(operations_.back().get());
  }
  Operation* operation = free_.back();
  free_.pop_back();
  operation->into = std::move(into);
  operation->pieces.assign(pieces.begin(), pieces.end());
  operation->posted = 0;
  operation->waiting = true;
  operation->status = OkStatus();
  operation->done = std::move(done);
  ++live_;
  operation->next = nullptr;
  (first_waiting_ == nullptr ? first_waiting_ : last_waiting_->next) = operation;
  last_waiting_ = operation;
  PostPieces();
  return OkStatus();
}

bool UcxReads::HasRoom() const { return gets_under_way_ < kGetsUnderWayMax; }

void UcxReads::PostPieces() {
  while (first_waiting_ != nullptr) {
    Operation* operation = first_waiting_;
    if (operation->status.ok() && operation->posted < operation->pieces.size()) {
      if (!HasRoom()) return;
      PostPiece(operation);
      continue;
    }
    first_waiting_ = operation->next;
    operation->waiting = false;
    FinishIfComplete(operation);
  }
}

void UcxReads::PostPiece(Operation* operation) {
  const ReadPiece& piece = operation->pieces[operation->posted++];
  if (piece.bytes == 0) return;
  ucp_request_param_t param = {};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                       UCP_OP_ATTR_FIELD_MEMORY_TYPE | UCP_OP_ATTR_FIELD_MEMH;
  param.cb.send = &UcxReads::OnGet;
  param.user_data = operation;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  param.memh = operation->into->handle();
  ++operation->under_way;
  ++gets_under_way_;
  const ucs_status_ptr_t request =
      ucp_get_nbx(endpoint_, operation->into->bytes().data() + piece.into_offset, piece.bytes,
                  memory_->address() + piece.offset, memory_->handle(), &param);
  if (UCS_PTR_IS_PTR(request)) return;
  OnPiece(operation, UCS_PTR_RAW_STATUS(request));  // at once, no callback will come
}

void UcxReads::OnGet(void* request, ucs_status_t status, void* user_data) {
  auto* operation = static_cast<Operation*>(user_data);
  operation->reads->OnPiece(operation, status);
  ucp_request_free(request);
}

void UcxReads::OnPiece(Operation* operation, ucs_status_t status) {
  --gets_under_way_;
  --operation->under_way;
  if (status != UCS_OK && operation->status.ok()) operation->status = UcxError("reading", status);
  FinishIfComplete(operation);
}

void UcxReads::FinishIfComplete(Operation* operation) {
  if (!operation->waiting && operation->under_way == 0) finished_.push_back(operation);
}

void UcxReads::Fail(const Status& why) {
  failed_ = why;
  for (const auto& operation : operations_) {
    const bool is_live = operation->waiting || operation->under_way > 0;
    if (is_live && operation->status.ok()) operation->status = why;
  }
  PostPieces();  // posts none: no read waits any more
}

int UcxReads::Advance() {
  PostPieces();
  delivering_.swap(finished_);
  for (Operation* operation : delivering_) {
    const std::function<void(Status)> done = std::move(operation->done);
    operation->done = {};
    operation->into.reset();
    const Status status = operation->status;
    free_.push_back(operation);
    --live_;
    if (done) done(status);
  }
  const auto count = static_cast<int>(delivering_.size());
  delivering_.clear();
  return count;
}

void UcxReads::Abandon() {
  Fail(Cancelled("the transport is being destroyed"));
  for (const auto& operation : operations_) operation->done = {};
  memory_.reset();
}

}  // namespace engram::net
