// The endpoints and the messages over them. Endpoints are closed by force at the end of a Progress,
// never inside a callback.
#include "common/net/ucx/transport.h"

#include <fmt/format.h>
#include <ucp/api/ucp.h>

#include <cstring>
#include <random>
#include <unordered_map>
#include <vector>

#include "common/net/ucx/address.h"
#include "common/net/ucx/context.h"
#include "common/net/ucx/memory.h"
#include "common/net/ucx/reads.h"
#include "common/net/ucx/worker.h"

namespace engram::net {
namespace {

constexpr unsigned kProgressRoundsMax = 64;  // a call: a flood must not hold the caller
constexpr Nanos kCloseTimeout = std::chrono::seconds(1);
constexpr size_t kIdBytes = sizeof(uint64_t);  // the sender's id, before every header

uint64_t RandomId() {
  std::random_device device;
  const uint64_t id = (uint64_t{device()} << 32) | device();
  return id == 0 ? 1 : id;
}

class UcxTransport : public Transport {
 public:
  UcxTransport() : id_(RandomId()) {}
  ~UcxTransport() override;
  Status Open(const UcxOptions& options);

  std::string name() const override { return "ucx"; }
  std::string address() const override { return address_; }
  std::string settings() const override { return settings_; }
  void SetHandler(TransportHandler* handler) override { handler_ = handler; }
  Result<PeerId> Attach(std::unique_ptr<DialedPeer> dialed) override;
  Result<std::unique_ptr<SendBuffer>> AllocateSendBuffer(size_t size_bytes) override;
  Status Send(PeerId to, std::span<const std::byte> header, SendBuffer* body, size_t body_bytes,
              std::function<void(Status)> done) override;
  bool one_sided() const override { return one_sided_; }
  Result<std::string> ShareMemory(std::span<const std::byte> memory) override;
  Status OpenMemory(PeerId peer, const std::string& key) override;
  Status Read(PeerId peer, std::span<const ReadPiece> pieces, SendBuffer* into,
              std::function<void(Status)> done) override;
  int Progress() override;
  void Wait(Nanos timeout) override;
  void WakeUp() override { worker_->WakeUp(); }
  void Disconnect(PeerId peer) override;

 private:
  struct Peer {
    UcxTransport* transport = nullptr;
    PeerId id = 0;
    uint64_t remote_id = 0;
    ucp_ep_h endpoint = nullptr;
    int sends_under_way = 0;
    bool given_up = false;  // by Disconnect: nothing more is reported
    bool closed = false;    // UCX is done with the endpoint and will not name this peer again
    Status lost;            // not ok once UCX has reported the endpoint
    UcxReads reads;
    bool is_reading = false;  // in reading_
  };
  // A send under way. UCX 1.13 does not copy the header, so it lives here; reused.
  struct Operation {
    UcxTransport* transport = nullptr;
    Peer* peer = nullptr;
    std::vector<std::byte> header;
    std::function<void(Status)> done;
  };

  Result<Peer*> FindConnected(PeerId peer);
  Operation* TakeOperation();
  void Finish(Operation* operation, ucs_status_t status);
  void CloseEndpoint(Peer* peer);
  int AdvanceReads();
  int EndLostPeers();

  static void OnSent(void* request, ucs_status_t status, void* user_data);
  static void OnClosed(void* request, ucs_status_t status, void* user_data);
  static void OnEndpointError(void* argument, ucp_ep_h endpoint, ucs_status_t status);
  static ucs_status_t OnActiveMessage(void* argument, const void* header, size_t header_bytes,
                                      void* data, size_t data_bytes,
                                      const ucp_am_recv_param_t* param);

  const uint64_t id_;
  ucp_context_h context_ = nullptr;
  bool one_sided_ = false;
  bool can_read_ = false;  // one-sided or emulated
  std::unique_ptr<UcxWorker> worker_;
  std::string address_;
  std::string settings_;
  TransportHandler* handler_ = nullptr;
  PeerId next_peer_ = 1;
  std::unordered_map<PeerId, std::unique_ptr<Peer>> peers_;
  std::unordered_map<uint64_t, Peer*> peer_of_remote_;  // those that may still deliver
  std::vector<Peer*> ending_;                           // lost or given up, not yet erased
  std::vector<Peer*> reading_;                          // with reads whose `done` has not run
  std::unique_ptr<UcxSharedMemory> shared_memory_;
  int closes_under_way_ = 0;
  int events_ = 0;  // of the Progress under way
  std::vector<std::unique_ptr<Operation>> operations_;
  std::vector<Operation*> free_operations_;
};

Status UcxTransport::Open(const UcxOptions& options) {
  ASSIGN_OR_RETURN(const UcxContext opened, OpenUcxContext(options));
  context_ = opened.context;
  one_sided_ = opened.one_sided;
  can_read_ = one_sided_ || options.emulated_reads;
  ASSIGN_OR_RETURN(worker_, UcxWorker::Create(context_, kHeaderBytesMax + kIdBytes,
                                              &UcxTransport::OnActiveMessage, this));
  address_ = EncodeUcxAddress({id_, worker_->address()});
  unsigned major = 0, minor = 0, release = 0;
  ucp_get_version(&major, &minor, &release);
  settings_ = fmt::format("ucx {}.{} segment {}", major, minor, options.segment_bytes);
  return OkStatus();
}

UcxTransport::~UcxTransport() {
  for (const auto& operation : operations_) operation->done = {};  // their owner may be half gone
  for (auto& [id, peer] : peers_) {
    peer->given_up = true;
    CloseEndpoint(peer.get());
  }
  peer_of_remote_.clear();
  const TimePoint deadline = Clock::Real().Now() + kCloseTimeout;
  while (worker_ != nullptr && closes_under_way_ > 0 && Clock::Real().Now() < deadline) {
    worker_->Progress();
  }
  for (auto& [id, peer] : peers_) peer->reads.Abandon();
  worker_.reset();
  peers_.clear();  // and with them the buffers of reads that were under way
  shared_memory_.reset();
  if (context_ != nullptr) ucp_cleanup(context_);
}

Result<PeerId> UcxTransport::Attach(std::unique_ptr<DialedPeer> dialed) {
  ASSIGN_OR_RETURN(const UcxAddress remote, ParseUcxAddress(dialed->address()));
  if (remote.id == id_ || peer_of_remote_.contains(remote.id)) {
    return AlreadyExists("already connected to this UCX address, or it is our own");
  }
  auto peer = std::make_unique<Peer>();
  peer->transport = this;
  peer->id = next_peer_++;
  peer->remote_id = remote.id;
  ucp_ep_params_t params = {};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(remote.worker.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = &UcxTransport::OnEndpointError;
  params.err_handler.arg = peer.get();
  const ucs_status_t status = ucp_ep_create(worker_->handle(), &params, &peer->endpoint);
  if (status != UCS_OK) return UcxError("connecting to a peer", status);
  const PeerId id = peer->id;
  peer_of_remote_[remote.id] = peer.get();
  peers_[id] = std::move(peer);
  return id;
}

Result<std::unique_ptr<SendBuffer>> UcxTransport::AllocateSendBuffer(size_t size_bytes) {
  ASSIGN_OR_RETURN(std::shared_ptr<UcxRegion> region, UcxRegion::Allocate(context_, size_bytes));
  return std::unique_ptr<SendBuffer>(std::make_unique<UcxBuffer>(std::move(region)));
}

Result<UcxTransport::Peer*> UcxTransport::FindConnected(PeerId peer) {
  const auto found = peers_.find(peer);
  if (found == peers_.end() || found->second->given_up || !found->second->lost.ok()) {
    return Unavailable(fmt::format("peer {} is not connected", peer));
  }
  return found->second.get();
}

Result<std::string> UcxTransport::ShareMemory(std::span<const std::byte> memory) {
  if (!can_read_) return Transport::ShareMemory(memory);
  if (shared_memory_ != nullptr) return FailedPrecondition("memory is shared already");
  if (memory.empty()) return InvalidArgument("no memory to share");
  ASSIGN_OR_RETURN(shared_memory_, UcxSharedMemory::Register(context_, memory));
  return shared_memory_->key();
}

Status UcxTransport::OpenMemory(PeerId id, const std::string& key) {
  if (!can_read_) return Transport::OpenMemory(id, key);
  ASSIGN_OR_RETURN(Peer * peer, FindConnected(id));
  return peer->reads.Open(peer->endpoint, key);
}

Status UcxTransport::Read(PeerId id, std::span<const ReadPiece> pieces, SendBuffer* into,
                          std::function<void(Status)> done) {
  if (!can_read_) return Transport::Read(id, pieces, into, std::move(done));
  ASSIGN_OR_RETURN(Peer * peer, FindConnected(id));
  const auto* buffer = static_cast<UcxBuffer*>(into);  // made by our AllocateSendBuffer
  RETURN_IF_ERROR(peer->reads.Add(pieces, buffer->region(), std::move(done)));
  if (!std::exchange(peer->is_reading, true)) reading_.push_back(peer);
  return OkStatus();
}

// `done` may start reads, from these peers or others.
int UcxTransport::AdvanceReads() {
  int finished = 0;
  for (size_t i = 0; i < reading_.size();) {
    Peer* peer = reading_[i];
    finished += peer->reads.Advance();
    if (!peer->reads.idle()) {
      ++i;
      continue;
    }
    peer->is_reading = false;
    reading_[i] = reading_.back();
    reading_.pop_back();
  }
  return finished;
}

UcxTransport::Operation* UcxTransport::TakeOperation() {
  if (free_operations_.empty()) {
    operations_.push_back(std::make_unique<Operation>());
    operations_.back()->transport = this;
    free_operations_.push_back(operations_.back().get());
  }
  Operation* operation = free_operations_.back();
  free_operations_.pop_back();
  return operation;
}

Status UcxTransport::Send(PeerId to, std::span<const std::byte> header, SendBuffer* body,
                          size_t body_bytes, std::function<void(Status)> done) {
  if (header.size() > kHeaderBytesMax || body_bytes > kBodyBytesMax) {
    return ResourceExhausted(fmt::format("message of {} + {} bytes, limits are {} + {}",
                                         header.size(), body_bytes, kHeaderBytesMax,
                                         kBodyBytesMax));
  }
  ASSIGN_OR_RETURN(Peer * peer, FindConnected(to));
  Operation* operation = TakeOperation();
  operation->peer = peer;
  operation->done = std::move(done);
  operation->header.resize(kIdBytes + header.size());
  std::memcpy(operation->header.data(), &id_, kIdBytes);
  if (!header.empty()) {
    std::memcpy(operation->header.data() + kIdBytes, header.data(), header.size());
  }

  ucp_request_param_t param = {};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK |
                       UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE;
  param.flags = UCP_AM_SEND_FLAG_EAGER;
  param.cb.send = &UcxTransport::OnSent;
  param.user_data = operation;
  param.memory_type = UCS_MEMORY_TYPE_HOST;
  const void* data = nullptr;
  if (body_bytes > 0) {
    auto* buffer = static_cast<UcxBuffer*>(body);  // made by our AllocateSendBuffer
    CHECK_LE(body_bytes, buffer->bytes().size());
    data = buffer->bytes().data();
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
    param.memh = buffer->region()->handle();
  }
  ++operation->peer->sends_under_way;
  const ucs_status_ptr_t request =
      ucp_am_send_nbx(operation->peer->endpoint, kUcxMessageId, operation->header.data(),
                      operation->header.size(), data, body_bytes, &param);
  if (UCS_PTR_IS_ERR(request)) {
    operation->done = {};
    Finish(operation, UCS_PTR_STATUS(request));
    return UcxError("sending", UCS_PTR_STATUS(request));
  }
  if (request == nullptr) Finish(operation, UCS_OK);  // sent at once, no callback will come
  return OkStatus();
}

void UcxTransport::Finish(Operation* operation, ucs_status_t status) {
  --operation->peer->sends_under_way;
  const bool given_up = operation->peer->given_up;
  const std::function<void(Status)> done = std::move(operation->done);
  operation->done = {};
  free_operations_.push_back(operation);
  ++events_;
  if (!done) return;
  if (status == UCS_OK) return done(OkStatus());
  if (given_up || status == UCS_ERR_CANCELED) return done(Cancelled("the peer was given up"));
  done(UcxError("sending", status));
}

void UcxTransport::OnSent(void* request, ucs_status_t status, void* user_data) {
  auto* operation = static_cast<Operation*>(user_data);
  operation->transport->Finish(operation, status);
  ucp_request_free(request);
}

void UcxTransport::OnEndpointError(void* argument, ucp_ep_h, ucs_status_t status) {
  auto* peer = static_cast<Peer*>(argument);
  if (!peer->lost.ok()) return;
  const bool is_ending = peer->given_up;
  peer->lost =
      Unavailable(fmt::format("the connection failed (UCX: {})", ucs_status_string(status)));
  peer->reads.Fail(peer->lost);
  if (!is_ending) peer->transport->ending_.push_back(peer);
}

ucs_status_t UcxTransport::OnActiveMessage(void* argument, const void* header, size_t header_bytes,
                                           void* data, size_t data_bytes,
                                           const ucp_am_recv_param_t* param) {
  auto* self = static_cast<UcxTransport*>(argument);
  ++self->events_;
  // Rendezvous data is never asked for, nor is a message without a sender; UCX drops what we do not
  // take.
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0 || header_bytes < kIdBytes)
    return UCS_OK;
  uint64_t sender = 0;
  std::memcpy(&sender, header, kIdBytes);
  const auto known = self->peer_of_remote_.find(sender);
  if (known == self->peer_of_remote_.end()) return UCS_OK;
  self->handler_->OnMessage(
      known->second->id,
      {static_cast<const std::byte*>(header) + kIdBytes, header_bytes - kIdBytes},
      {static_cast<const std::byte*>(data), data_bytes});
  return UCS_OK;
}

void UcxTransport::OnClosed(void* request, ucs_status_t, void* user_data) {
  auto* peer = static_cast<Peer*>(user_data);
  peer->closed = true;
  --peer->transport->closes_under_way_;
  ucp_request_free(request);
}

void UcxTransport::CloseEndpoint(Peer* peer) {
  if (peer->endpoint == nullptr) return;
  ucp_request_param_t param = {};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  param.cb.send = &UcxTransport::OnClosed;
  param.user_data = peer;
  ++closes_under_way_;
  const ucs_status_ptr_t request = ucp_ep_close_nbx(peer->endpoint, &param);
  peer->endpoint = nullptr;
  if (UCS_PTR_IS_PTR(request)) return;
  peer->closed = true;  // at once, no callback will come
  --closes_under_way_;
}

// Closes the endpoints of peers lost or given up, and reports and forgets those without sends and
// reads under way.
int UcxTransport::EndLostPeers() {
  int reported = 0;
  for (size_t i = 0; i < ending_.size();) {
    Peer* peer = ending_[i];
    CloseEndpoint(peer);
    if (!peer->closed || peer->sends_under_way > 0 || peer->is_reading) {
      ++i;
      continue;
    }
    ending_.erase(ending_.begin() + static_cast<ptrdiff_t>(i));
    const auto node = peers_.extract(peer->id);
    if (peer->given_up) continue;
    peer_of_remote_.erase(peer->remote_id);
    handler_->OnPeerLost(peer->id, peer->lost);
    ++reported;
  }
  return reported;
}

int UcxTransport::Progress() {
  for (unsigned round = 0; round < kProgressRoundsMax; ++round) {
    const unsigned progressed = worker_->Progress();
    if (!reading_.empty()) events_ += AdvanceReads();
    if (progressed == 0) break;
  }
  if (!ending_.empty()) events_ += EndLostPeers();
  return std::exchange(events_, 0);
}

void UcxTransport::Wait(Nanos timeout) {
  if (timeout <= Nanos::zero() || events_ > 0 || !ending_.empty()) return;
  for (const Peer* peer : reading_) {
    if (peer->reads.ready()) return;
  }
  worker_->Sleep(timeout);
}

void UcxTransport::Disconnect(PeerId id) {
  const auto found = peers_.find(id);
  if (found == peers_.end() || found->second->given_up) return;
  Peer* peer = found->second.get();
  peer->given_up = true;
  peer_of_remote_.erase(peer->remote_id);
  peer->reads.Fail(Cancelled("the peer was given up"));
  if (peer->lost.ok()) ending_.push_back(peer);  // else it is there already
}

}  // namespace

Result<std::unique_ptr<Transport>> MakeUcxTransport(const UcxOptions& options) {
  auto transport = std::make_unique<UcxTransport>();
  RETURN_IF_ERROR(transport->Open(options));
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace engram::net
