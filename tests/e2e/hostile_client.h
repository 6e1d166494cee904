// A client that a memory node has welcomed and that then speaks nonsense: damaged, wrong, replayed
// and endless requests, over the real wire. Single-threaded, bounded.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/rng.h"
#include "common/net/control/control.h"
#include "common/net/transport.h"
#include "common/net/wire.h"
#include "common/net/wire_config.h"
#include "common/table/identity.h"

namespace engram::testing_support {

class HostileClient : private net::TransportHandler {
 public:
  HostileClient(const std::string& control_address, const net::WireConfig& wire,
                const table::TableIdentity& identity, uint64_t seed);
  ~HostileClient() override;

  Status Connect();
  // One message of a kind chosen by chance; connects again after the node has hung up.
  Status SpeakNonsense();
  // Valid requests for as many rows as there can be, whose answers are never taken.
  Status AskAndStopReading(int requests);

  uint64_t errors_received() const { return errors_received_; }
  uint64_t rows_received() const { return rows_received_; }
  uint64_t times_dropped() const { return times_dropped_; }

 private:
  using Bytes = std::vector<std::byte>;
  struct Message {
    Bytes header;
    Bytes body;
  };
  void OnMessage(net::PeerId from, std::span<const std::byte> header,
                 std::span<const std::byte> body) override;
  void OnPeerLost(net::PeerId peer, const Status& why) override;
  Bytes RandomBytes(size_t count);
  void Damage(Bytes& bytes);
  Message Lookup(net::LookupHeader header, std::vector<net::LookupLayer> layers);
  net::LookupHeader HeaderOfOurs();
  Message Nonsense();
  // Gives up after a second without room.
  Status Send(const Message& message);
  void ProgressFor(Nanos time);

  const std::string control_address_;
  const net::WireConfig wire_;
  const table::TableIdentity identity_;
  Rng rng_;
  std::unique_ptr<net::Transport> transport_;
  std::unique_ptr<net::ControlClient> control_;
  std::unique_ptr<net::SendBuffer> buffer_;
  net::PeerId peer_ = 0;
  uint64_t next_request_ = 1;
  uint64_t errors_received_ = 0, rows_received_ = 0, times_dropped_ = 0;
};

}  // namespace engram::testing_support
