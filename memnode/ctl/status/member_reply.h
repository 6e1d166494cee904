// What a memory node says of itself when it is asked for its status (memnode/node/status_reply.h
// has the keys), read as the reply of a stranger.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"
#include "memnode/ctl/publication.h"

namespace engram::ctl {

struct MemberReply {
  struct Store {
    uint64_t bytes = 0, age_ms = 0, waiting_ms = 0;
    std::optional<uint64_t> free_bytes;
    std::string problem;
    bool full = false;
  };
  struct Damaged {
    std::string model, version, why;
    uint64_t partitions = 0;
  };
  struct Reserved {
    std::string model, holder;
  };

  std::string member, zone, run, state, why;
  uint32_t epoch = 0;
  std::vector<std::string> members;
  // Of the cluster's map: what is under way, why this member is not ready for it yet, and why the
  // keeper of the list does not answer; empty: nothing.
  std::string change, change_problem, keeper;
  bool loading = false;
  uint64_t clock_ns = 0, sessions = 0, rows_sent = 0, recent_lookups = 0, recent_unreadable = 0;
  std::vector<double> service_bounds_us;
  std::vector<uint64_t> service_counts;
  uint64_t partitions = 0, rows = 0, rows_in_memory = 0, memory_bytes = 0, unmended = 0;
  std::optional<Store> store;
  std::vector<NodeVersion> versions;
  std::vector<Damaged> damage;
  std::vector<Reserved> reserved;
};

// INVALID_ARGUMENT names the node at `address`, and the key.
Result<MemberReply> ParseMemberReply(const json::object& reply, const std::string& address);

}  // namespace engram::ctl
