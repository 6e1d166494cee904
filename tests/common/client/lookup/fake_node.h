// A memory node in small for tests of the client: a real control server, a thread that serves
// procedural rows over the wire of net/wire.h, on whatever transport it is given.
#pragma once

#include <atomic>
#include <future>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "common/net/control/control.h"
#include "common/net/transport.h"
#include "common/net/wire.h"
#include "common/table/identity.h"
#include "common/table/layout.h"
#include "common/table/owners.h"
#include "common/table/placement.h"

namespace engram::client {

// Two layers of a few thousand rows; rows of 264 bytes.
table::TableLayout MakeTestLayout();

// Which members of the map hold each partition of that layout.
table::OwnerTable TestOwners(const table::ClusterMap& map);
bool OwnsRow(const table::OwnerTable& owners, size_t member, uint32_t layer_index, uint64_t row);

// The bytes of a row, a function of (layer, row) only.
void FillRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out);

class FakeNode : private net::TransportHandler {
 public:
  // What a node answers and how; fields changed by a test before the node starts.
  struct Behaviour {
    table::ClusterMap map;
    std::string member;
    uint16_t port = 0;  // of the control connection; 0 picks one
    table::TableIdentity identity;
    uint64_t generation = 0;
    bool published = true;                       // false: refuses a hello that names no version
    std::vector<std::string> prepared_versions;  // served to a hello that names one
    uint32_t chunk_rows = 7;
    bool lie_about_known_row = false;
    bool wrong_bytes_in_known_row = false;
    Status refuse_hellos;   // not ok: every hello is answered with this error
    Status refuse_lookups;  // not ok: every lookup is answered with this error
    int shift_first = 0;    // added to RowsHeader::first of every chunk
  };
  FakeNode(Behaviour behaviour, std::unique_ptr<net::Transport> transport);
  ~FakeNode() override;

  std::string address() const;  // "127.0.0.1:port" of the control server
  std::string transport_address() const { return transport_address_; }
  uint64_t lookups() const { return lookups_.load(); }
  uint64_t rows_asked() const { return rows_asked_.load(); }
  int hellos() const { return hellos_.load(); }
  bool layers_ascended() const { return layers_ascended_.load(); }
  // The data connections stay.
  void CloseControl();
  // Tells its clients that a later map is in force; its own stays.
  void TellEpoch(uint32_t epoch) { control_->TellEpoch(epoch); }
  // As a process that is stopped and goes on: what is asked for waits in its connections.
  void Stop() { stopped_ = true; }
  void Continue() { stopped_ = false; }
  // From now on rows are damaged after they were sealed, or not answered at all.
  void DamageRows() { damages_ = true; }
  void LoseAnswers(bool loses) { loses_ = loses; }

 private:
  void OnMessage(net::PeerId from, std::span<const std::byte> header,
                 std::span<const std::byte> body) override;
  void OnPeerLost(net::PeerId, const Status&) override {}
  Result<net::Welcome> OnHello(const net::Hello& hello);
  void OnGone(uint64_t session);
  uint64_t KnownRow(uint32_t layer_index) const;
  void Run();
  void Answer(net::PeerId to, const net::LookupView& lookup);
  void SendChunk(net::PeerId to, uint64_t request_id, uint32_t layer_index, uint32_t first,
                 std::span<const uint64_t> rows);

  const Behaviour behaviour_;
  const table::TableLayout layout_ = MakeTestLayout();
  const table::OwnerTable owners_;
  const size_t self_;  // the map's size: outside the map
  std::string transport_address_;
  std::string settings_;
  std::atomic<uint64_t> lookups_ = 0;
  std::atomic<uint64_t> rows_asked_ = 0;
  std::atomic<int> hellos_ = 0;
  std::atomic<bool> layers_ascended_ = true;
  std::atomic<uint64_t> next_session_ = 1000;

  std::mutex mutex_;  // guards what the control thread asks of the other
  std::vector<std::pair<std::string, std::promise<Result<net::PeerId>>>> to_connect_;
  std::vector<net::PeerId> to_disconnect_;
  std::map<uint64_t, std::pair<std::string, net::PeerId>> peers_;  // by session: address and peer

  std::unique_ptr<net::Transport> transport_;
  std::vector<std::unique_ptr<net::SendBuffer>> buffers_;
  std::vector<net::SendBuffer*> free_buffers_;
  std::atomic<bool> stopping_ = false, stopped_ = false, damages_ = false, loses_ = false;
  std::thread thread_;
  std::unique_ptr<net::ControlServer> control_;
};

}  // namespace engram::client
