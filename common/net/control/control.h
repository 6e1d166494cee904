// The control connection between a client and a memory node: a TCP socket, with TLS when security.h
// says so, opened by the mutual challenge (challenge.h) and then carrying length-prefixed JSON,
// used once for the hello (identity, transport settings and address, cluster map) and then kept
// open as the sign of life; a client also reports damaged rows on it, and a node tells clients of
// a new epoch of the map. No UCX listener exists: a stranger's bytes on one abort Debian's UCX
// 1.13.
//
//   client: {"hello": {"protocol": 2, "identity": {...}, "transport": "ucx", "settings": "...",
//            "address": "hex",
//            and, optional, "epoch", "takes_news"}}
//   node:   {"welcome": {"member": "m0", "map": {...}, "identity": {...}, "session": "hex",
//            "settings": "...", "address": "hex",
//            "known_answers": [{"layer": 0, "row": "17", "sha256": "hex"}, ...],
//            and, optional, "transport", "window", "local_socket", "local_token",
//            "one_sided_key", "generation", "takes_damage"}}
//     or    {"refused": {"code": 4, "message": "..."}}     and closes
//   client: {"damaged": {"layer": 0, "row": "17"}}         any time later, if the node takes_damage
//   node:   {"news": {"epoch": 2}}                         any time later, if the client takes_news
//
// An operator's tool sends {"admin": {"command": ...}} instead (admin.h), and gets {"reply": {...}}
// or {"refused": ...}.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/io/json.h"
#include "common/net/tcp/security.h"
#include "common/table/identity.h"
#include "common/table/placement.h"

namespace engram::net {

inline constexpr uint32_t kControlProtocol = 2;
inline constexpr size_t kControlFrameBytesMax = 1 << 20;
inline constexpr int kControlConnectionsMax = 1024;  // per node
inline constexpr Nanos kControlPeerTimeout =
    std::chrono::seconds(20);  // a peer whose host vanished
// A node takes one report of a client in this time.
inline constexpr Nanos kDamageReportEvery = std::chrono::milliseconds(10);
// A connection that has not said hello by then is dropped.
inline constexpr Nanos kHelloTimeout = std::chrono::seconds(5);
// A hello that the node has not answered by then is refused.
inline constexpr Nanos kSessionTimeout = std::chrono::seconds(5);
inline constexpr size_t kAdminWaitingMax = 32;  // requests of tools, besides the one carried out

// A row whose content the node states at connect; the client fetches it over the data path and
// compares, so that a wrong transport, layout or table fails before the first token.
struct KnownAnswer {
  uint32_t layer_index = 0;
  uint64_t row = 0;
  std::string sha256_hex;  // of the row's bytes
};

struct Hello {
  uint32_t protocol = kControlProtocol;
  table::TableIdentity identity;
  std::string transport;  // Transport::name()
  std::string settings;   // Transport::settings()
  std::string address;    // Transport::address(), raw bytes (hex on the wire)
  // Optional: sent only when not zero or false.
  uint32_t epoch = 0;       // of the map the client reads by; 0: the one in force
  bool takes_news = false;  // the node may tell of later epochs
};

struct Welcome {
  std::string member;  // the node's name in the map
  table::ClusterMap map;
  table::TableIdentity identity;  // with the content digest
  uint64_t session = 0;
  std::string settings;
  std::string address;
  std::vector<KnownAnswer> known_answers;
  // Optional: sent only when not zero or empty.
  std::string transport;      // Transport::name() the node answers on
  uint32_t window = 0;        // requests a client may have outstanding at this node; 0 = untold
  std::string local_socket;   // unix socket name of the shared-memory path
  std::string local_token;    // what to show there; raw bytes (hex on the wire)
  std::string one_sided_key;  // for Transport::OpenMemory; raw bytes (hex), at most 4 KiB
  uint64_t generation = 0;    // of this version's publication; 0: not published
  bool takes_damage = false;  // the client may report damaged rows
};

// A row whose check failed at the client.
struct DamagedRow {
  uint32_t layer_index = 0;
  uint64_t row = 0;
};

// Node side. Runs on its own thread, which never waits: all callbacks but on_admin run on it, and
// none of these may take long.
class ControlServer {
 public:
  // An error status becomes "refused". To be called once, on any thread; later than
  // kSessionTimeout the client has been refused, and after the server nothing happens.
  using AnswerHello = std::function<void(Result<Welcome>)>;
  // The same of a tool's request, which waits for as long as the tool does.
  using AnswerTool = std::function<void(Result<json::object>)>;
  struct Callbacks {
    // Has a hello answered, at once or later.
    std::function<void(const Hello& hello, AnswerHello answer)> on_hello;
    // Once for each session welcomed, when its connection closes for any reason, or has closed
    // before the answer.
    std::function<void(uint64_t session)> on_gone;
    // Answers a tool (null: refused). On a thread of its own, one request after the other: it may
    // take long. Beyond kAdminWaitingMax that wait, tools are refused.
    std::function<Result<json::object>(const json::object& request)> on_admin = nullptr;
    // Has a tool's "status" answered, at once or later, also while on_admin is busy (null: on_admin
    // answers it as any other request).
    std::function<void(AnswerTool answer)> on_status = nullptr;
    // A session's client found a row damaged (null: clients have nothing to say).
    std::function<void(uint64_t session, const DamagedRow& row)> on_damaged = nullptr;
  };
  // ALREADY_EXISTS names the address when the port is taken. Port 0 picks one (see port()).
  static Result<std::unique_ptr<ControlServer>> Start(
      const std::string& host, uint16_t port, Callbacks callbacks,
      std::shared_ptr<const Security> security = {});
  // Waits for the request of a tool that is carried out, closes every connection, and joins.
  virtual ~ControlServer() = default;
  virtual uint16_t port() const = 0;
  // Tells all clients which take news that `epoch` is in force, but those that were welcomed to it
  // or a later one; also those still to come. Any thread; never waits.
  virtual void TellEpoch(uint32_t epoch) = 0;
  // Closes the connections of these sessions. Any thread; never waits.
  virtual void End(std::vector<uint64_t> sessions) = 0;
};

// Client side: connects, says hello, reads the answer, all within `timeout`; afterwards the
// connection only shows whether the node is alive. FAILED_PRECONDITION when either side does not
// know the cluster secret or has no certificate of the cluster.
class ControlClient {
 public:
  static Result<std::unique_ptr<ControlClient>> Connect(const std::string& host, uint16_t port,
                                                        const Hello& hello, Nanos timeout,
                                                        const Security* security = nullptr);
  virtual ~ControlClient() = default;
  virtual const Welcome& welcome() const = 0;
  // True once the node has closed or reset the connection. Cheap, never blocks; owner thread only.
  virtual bool Lost() = 0;
  // The latest epoch that the node has told of since its welcome, as of the last Lost(); 0: none.
  virtual uint32_t told_epoch() const = 0;
  // Tells the node of a row that came damaged. Never blocks; false when the node does not take it,
  // or not now. Owner thread only.
  virtual bool ReportDamaged(const DamagedRow& row) = 0;
  // For epoll; readable when Lost() may have changed.
  virtual int fd() const = 0;
};

}  // namespace engram::net
