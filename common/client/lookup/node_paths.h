// The ways to one node's rows and which of them is cheapest for how many rows: mapped memory of the
// same host, gathered by the owner, or one-sided reads.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/client/row_source.h"
#include "common/net/control/control.h"
#include "common/net/transport.h"
#include "common/table/arena_map.h"
#include "common/table/layout.h"

namespace engram::client {

// What `lookup.path` says: "auto" is no path in particular.
using PathChoice = std::optional<Path>;
// "auto", "local", "gather" or "one_sided"; INVALID_ARGUMENT quotes anything else.
Result<PathChoice> ParsePathChoice(const std::string& text);

// Time of a request of n rows: fixed_ns + n * per_row_ns, fitted to measurements at connect.
struct PathCost {
  double fixed_ns = 0;
  double per_row_ns = 0;
};

using PathCosts = std::array<PathCost, kPathCount>;

struct NodePaths {
  std::array<bool, kPathCount> open = {};       // by Path
  PathCosts costs = {};                         // zero: not measured
  table::ArenaMap arena;                        // where the node's rows lie in its memory
  std::shared_ptr<const AlignedBuffer> mapped;  // that memory, when local is open
  PathChoice forced;

  bool is_open(Path path) const { return open[static_cast<size_t>(path)]; }
  int open_count() const;
  // The forced path, or the open one that takes least time.
  Path Choose(uint32_t rows) const;
};

// Gather, and mapped memory where `choice` allows it and the node shares it. May block for
// `timeout`. An error when the path asked for by name cannot be had, naming `label` and why.
Result<NodePaths> OpenPaths(PathChoice choice, const net::Welcome& welcome,
                            const table::TableLayout& layout, const std::string& label,
                            Nanos timeout);
// One-sided reads, likewise, of a peer that is connected. The transport's owner; never blocks.
Status OpenOneSided(const net::Welcome& welcome, const std::string& label,
                    net::Transport& transport, net::PeerId peer, NodePaths& paths);

// The line through the times of a few and of many rows.
PathCost FitCost(uint32_t few_rows, Nanos few, uint32_t many_rows, Nanos many);

}  // namespace engram::client
