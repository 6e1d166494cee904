// The data thread's side of rows that are not in memory: finds what a request lacks, has it read,
// and puts the rows that arrived in their places.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "common/base/status.h"
#include "memnode/serve/request_queue.h"
#include "memnode/tables/served_tables.h"

namespace engram::memnode {

// The row numbers of `count` ids of a request, from id `first` of all its layers on.
std::span<const uint64_t> RowsOf(const Request& request, size_t first, std::span<uint64_t> rows);

// Looks for every row still to be served; those that are not in memory become request.cold and are
// read by `cold`, `on_part` being called when a layer's have arrived. False when too many rows are
// on their way for others already. Errors as ArenaMap::Find.
Result<bool> StageColdRows(Request& request, const ServedTables& tables, ColdReader& cold,
                           const std::function<void()>& on_part);

// Fills the null addresses of rows [first, first + addresses.size()) of the request's current layer
// from request.cold. False when one of them was not staged: its partition has left memory since.
bool PlaceColdRows(const Request& request, uint32_t first, std::span<const std::byte*> addresses);

}  // namespace engram::memnode
