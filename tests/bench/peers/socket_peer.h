// A keyed store in a process of its own, started on one core, filled with every row of the layout,
// and read through one connection.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/table/layout.h"
#include "tests/bench/harness/rounds.h"
#include "tests/bench/peers/polling_socket.h"
#include "tests/bench/peers/protocol.h"
#include "tests/support/process.h"

namespace engram::bench {

// How to start a server and talk to it.
struct ServerSpec {
  std::string name;               // "redis"
  std::vector<std::string> argv;  // of the program; "{port}" is replaced
  std::function<std::unique_ptr<Protocol>()> protocol;
};

class SocketPeer {
 public:
  // Starts the server on `cpu` and connects. UNAVAILABLE quotes what it said before it ended.
  static Result<std::unique_ptr<SocketPeer>> Start(const ServerSpec& spec, int cpu,
                                                   const std::string& work_dir);
  // Stores every row of both layers; afterwards memory_bytes() is that of the whole process.
  Status Fill(const table::TableLayout& layout, uint64_t seed);
  uint64_t memory_bytes() const { return memory_bytes_; }

  // A reader of `depth` batches at a time. One at work at any time.
  std::unique_ptr<BatchReader> MakeReader(size_t depth, size_t row_bytes);

 private:
  SocketPeer(std::unique_ptr<testing_support::Process> process, std::unique_ptr<Protocol> protocol,
             PollingSocket socket);

  std::unique_ptr<testing_support::Process> process_;
  std::unique_ptr<Protocol> protocol_;
  PollingSocket socket_;
  uint64_t memory_bytes_ = 0;
};

}  // namespace engram::bench
