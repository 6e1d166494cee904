// The one-sided reads from one peer: a few gets under way at a time, the rest waiting in order. No
// allocation per piece or, after warm-up, per read. Internal to common/net; the transport's thread.
#pragma once

#include <ucp/api/ucp.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/net/transport.h"
#include "common/net/ucx/memory.h"

namespace engram::net {

class UcxReads {
 public:
  // Once, before any Add.
  Status Open(ucp_ep_h endpoint, const std::string& key);
  // As Transport::Read. `done` runs in a later Advance, never in here.
  Status Add(std::span<const ReadPiece> pieces, std::shared_ptr<UcxRegion> into,
             std::function<void(Status)> done);
  // Posts what there is room for and runs `done` of the finished; returns how many. `done` may Add.
  int Advance();
  // No get is posted any more. What waits finishes with `why`; what is under way does once UCX has
  // let go of it, which closing the endpoint makes it do.
  void Fail(const Status& why);
  // The transport is being destroyed: no `done` runs any more, and the key is given back. Call with
  // the endpoint closed.
  void Abandon();
  // Nothing waits, is under way, or has a `done` to run.
  bool idle() const { return live_ == 0; }
  // Advance has something to do now.
  bool ready() const { return !finished_.empty() || (first_waiting_ != nullptr && HasRoom()); }

 private:
  struct Operation {
    UcxReads* reads = nullptr;
    std::shared_ptr<UcxRegion> into;  // kept until the device has let go of it
    std::vector<ReadPiece> pieces;
    size_t posted = 0;
    size_t under_way = 0;
    bool waiting = false;       // with pieces to post
    Operation* next = nullptr;  // of the waiting
    Status status;
    std::function<void(Status)> done;
  };

  bool HasRoom() const;
  void PostPieces();
  void PostPiece(Operation* operation);
  void FinishIfComplete(Operation* operation);
  void OnPiece(Operation* operation, ucs_status_t status);
  static void OnGet(void* request, ucs_status_t status, void* user_data);

  ucp_ep_h endpoint_ = nullptr;
  std::unique_ptr<UcxRemoteMemory> memory_;
  Status failed_;  // not ok once Fail was called
  Operation* first_waiting_ = nullptr;
  Operation* last_waiting_ = nullptr;
  std::vector<Operation*> finished_, delivering_;
  size_t gets_under_way_ = 0;
  size_t live_ = 0;  // reads whose `done` has not run
  std::vector<std::unique_ptr<Operation>> operations_;
  std::vector<Operation*> free_;
};

}  // namespace engram::net
