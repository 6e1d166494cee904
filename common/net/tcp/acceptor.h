// The listening side of data and control sockets: accepts sockets and takes each through TLS and
// the challenge without blocking, a bounded number at once, each for a bounded time. A socket that
// fails is closed without effect on others; when strangers take all the room, room.h chooses.
// Internal to common/net.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/net/control/fd_passing.h"
#include "common/net/room.h"
#include "common/net/tcp/challenge.h"
#include "common/net/tcp/security.h"
#include "common/net/tcp/stream.h"

struct sockaddr_storage;

namespace engram::net {

// 127.0.0.0/8, ::1, and the former written as IPv6.
bool IsLoopback(const sockaddr_storage& address);

class TcpAcceptor {
 public:
  struct Callbacks {
    std::function<bool(const EndpointId&)> expects;
    std::function<void(const EndpointId&, TcpStream)> arrived;
    // Descriptors have run out and no socket on its way holds one: false when the owner has none to
    // give either. May be null.
    std::function<bool()> free_one = nullptr;
  };
  struct Options {
    std::string host;
    uint16_t port = 0;  // 0 picks one
    ChallengePurpose purpose = ChallengePurpose::kData;
    std::shared_ptr<const Security> security;
    EndpointId own_id{};
    Nanos timeout = std::chrono::seconds(5);  // from a socket's arrival to its last proof
    const Clock* clock = &Clock::Real();
  };
  // ALREADY_EXISTS when the port is taken; UNAVAILABLE for a host that is not one of ours.
  static Result<std::unique_ptr<TcpAcceptor>> Open(Options options, Callbacks callbacks);

  int fd() const { return epoll_.get(); }  // readable when Progress has something to do
  const std::string& host() const { return host_; }
  uint16_t port() const { return port_; }
  // Only processes of this host reach the address listened on.
  bool loopback() const { return loopback_; }
  // What arrives has shown that it is one of the cluster: by the secret, or by a certificate that
  // was checked.
  bool proves_peers() const;
  // Moves everything on that can move; the number of sockets that have arrived.
  int Progress();
  // Time alone gives Progress something to do: to end connections that take too long, or to accept
  // again after running out of descriptors.
  bool needs_time() const { return !guests_.empty() || paused_; }

 private:
  // A socket on its way.
  struct Guest {
    Guest(TcpStream socket, Challenge first, TimePoint arrival, TimePoint end)
        : stream(std::move(socket)),
          challenge(std::move(first)),
          address(PeerAddressOf(stream.fd())),
          waits_since(arrival),
          until(end) {}
    TcpStream stream;
    Challenge challenge;
    PeerAddress address;
    TimePoint waits_since;  // for the message awaited
    TimePoint until;
    bool gives_way = false;  // closed at the end of this Progress
    bool tls_done = false;
    bool opened = false;  // the challenge has begun well
    std::string message;  // being read
    size_t read = 0;
    std::string output;   // being written
    uint32_t events = 0;  // as epoll knows them
  };
  using Guests = std::list<Guest>;

  TcpAcceptor(Options options, Callbacks callbacks);
  Status Listen();
  void Accept();
  void Pause();
  bool FreeDescriptor();
  // Room for one more guest from `address` among those that have opened the challenge, or have not.
  // False when there is none.
  bool MakeRoom(bool opened, const PeerAddress& address);
  std::vector<Occupant> Occupants(const std::vector<Guest*>& guests) const;
  std::vector<Guest*> GuestsThat(bool opened);
  void Settle(Guest& guest);
  void Sweep(TimePoint now);
  enum class Outcome { kWaits, kArrived, kFailed };
  Outcome Move(Guest& guest);
  Outcome MoveChallenge(Guest& guest);
  bool Await(Guest& guest, uint32_t events);

  const Options options_;
  const Callbacks callbacks_;
  const size_t guests_max_;  // of either kind
  OwnedFd listener_, epoll_;
  std::string host_;
  uint16_t port_ = 0;
  bool loopback_ = false;
  bool paused_ = false;  // no descriptors were left: epoll does not watch the listener
  TimePoint paused_until_;
  Guests guests_;
  size_t opened_count_ = 0;
  TimePoint sweep_at_;
  int arrived_ = 0;  // in this Progress
};

}  // namespace engram::net
