// The peers' servers as they are started here, and whether they are installed.
#pragma once

#include <string>
#include <vector>

#include "common/table/layout.h"
#include "tests/bench/peers/socket_peer.h"

namespace engram::bench {

struct InstalledServer {
  ServerSpec spec;
  std::string version;
  std::string settings;  // for the report: every one that is not the default
  std::string missing;   // not empty: why it is skipped, and what to install
};

InstalledServer RedisServer();
// memory for `rows` rows with room to spare; meta: pipelined meta gets instead of one multi-get.
InstalledServer MemcachedServer(uint64_t rows, bool meta);

}  // namespace engram::bench
