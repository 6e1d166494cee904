// Transport: the seam under the row service. Messages of a small header and a body between two
// processes that have exchanged addresses by other means (control.h). Real: ucx/transport.h. Fake:
// tests/support/fakes/loopback_transport.h (in process, with delay, drop and corruption).
//
// Threads: one thread owns a transport and makes every call, except Dial, WakeUp and the constant
// name, address and settings. Nothing is delivered outside Progress().
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace engram::net {

using PeerId = uint64_t;  // of this transport; never reused, 0 is no peer

// What can be sent: bounds are checked on both sides. A header and the sender's id must fit one
// datagram of an RDMA device behind an ordinary network (1024 bytes less UCX's 69).
inline constexpr size_t kHeaderBytesMax = 896;
inline constexpr size_t kBodyBytesMax = 256 * 1024;  // one message; larger replies go in chunks

// Memory the transport can send without copying. Its holder owns it; it must outlive its sends and
// die before its transport.
class SendBuffer {
 public:
  virtual ~SendBuffer() = default;
  virtual std::span<std::byte> bytes() = 0;
};

// One piece of a one-sided read: `bytes` at `offset` of the remote memory go to `into_offset` of
// the buffer.
struct ReadPiece {
  uint64_t offset = 0;
  uint32_t bytes = 0;
  uint32_t into_offset = 0;
};

// A way to a peer that Dial has opened and Attach takes over.
class DialedPeer {
 public:
  explicit DialedPeer(std::string address) : address_(std::move(address)) {}
  virtual ~DialedPeer() = default;
  const std::string& address() const { return address_; }

 private:
  const std::string address_;
};

class TransportHandler {
 public:
  virtual ~TransportHandler() = default;
  // Both spans die with the call.
  virtual void OnMessage(PeerId from, std::span<const std::byte> header,
                         std::span<const std::byte> body) = 0;
  // The peer is gone: no further message from it, its sends have completed with an error, its id is
  // dead.
  virtual void OnPeerLost(PeerId peer, const Status& why) = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;
  // "tcp" | "ucx" | "loopback", for logs and metrics.
  virtual std::string name() const = 0;
  // What the other side passes to Connect; opaque bytes, constant over the transport's life.
  virtual std::string address() const = 0;
  // Settings both sides must share (UCX does not negotiate its segment size); compared in the
  // control handshake.
  virtual std::string settings() const = 0;
  // Must be set before the first Progress; outlives the transport.
  virtual void SetHandler(TransportHandler* handler) = 0;
  // The part of connecting that may block, for `timeout` and a bound of the transport's own: any
  // thread, while the transport lives.
  virtual Result<std::unique_ptr<DialedPeer>> Dial(const std::string& address,
                                                   Nanos /*timeout*/) const {
    return std::make_unique<DialedPeer>(address);
  }
  // The rest, which never blocks.
  virtual Result<PeerId> Attach(std::unique_ptr<DialedPeer> dialed) = 0;
  // Dial and Attach: may block. ALREADY_EXISTS at once for a peer that is connected.
  virtual Result<PeerId> Connect(const std::string& address) {
    ASSIGN_OR_RETURN(std::unique_ptr<DialedPeer> dialed, Dial(address, Nanos::max()));
    return Attach(std::move(dialed));
  }
  virtual Result<std::unique_ptr<SendBuffer>> AllocateSendBuffer(size_t size_bytes) = 0;
  // Sends header (copied) and the first body_bytes of `body` (not copied; may be null with 0).
  // `done` runs inside a later Progress, or before Send returns, exactly once unless Send itself
  // returns an error; then the buffer is free again. A transport being destroyed calls no `done`
  // any more. RESOURCE_EXHAUSTED over the limits above.
  virtual Status Send(PeerId to, std::span<const std::byte> header, SendBuffer* body,
                      size_t body_bytes, std::function<void(Status)> done) = 0;
  // As Send, when another message to this peer follows at once: this one may be held back until
  // then, or until the next Progress, to go out together; `done` may run inside that Send.
  virtual Status SendMore(PeerId to, std::span<const std::byte> header, SendBuffer* body,
                          size_t body_bytes, std::function<void(Status)> done) {
    return Send(to, header, body, body_bytes, std::move(done));
  }
  // One-sided reads, without the owner's CPU: only of transports that have them in hardware.
  virtual bool one_sided() const { return false; }
  // Lets connected peers read `memory`; the key is opaque and reaches them by the control
  // connection. Once per transport; the memory outlives it.
  virtual Result<std::string> ShareMemory(std::span<const std::byte> memory);
  // The memory behind a peer's key, for Read. Dies with the peer.
  virtual Status OpenMemory(PeerId peer, const std::string& key);
  // Reads pieces of the peer's opened memory into `into`, which stays the transport's until `done`
  // has run: once, when all pieces are there or one has failed; as for Send. `pieces` dies with the
  // call. UNAVAILABLE when the peer is gone or nothing was opened; the default has no such reads.
  virtual Status Read(PeerId peer, std::span<const ReadPiece> pieces, SendBuffer* into,
                      std::function<void(Status)> done);
  // Delivers what has arrived and completed; returns the number of events handled (0 = idle).
  virtual int Progress() = 0;
  // Sleeps until something may have arrived, WakeUp, or `timeout`. May return early for no reason.
  virtual void Wait(Nanos timeout) = 0;
  // From any thread: ends the current or next Wait.
  virtual void WakeUp() = 0;
  // Gives the peer up at once; outstanding sends complete with CANCELLED.
  virtual void Disconnect(PeerId peer) = 0;
};

}  // namespace engram::net
