// How far the scrubber is in one table set, kept in the store's record `scrub/<id>`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "memnode/store/row_store.h"

namespace engram::memnode {

// Since the table set was imported.
struct ScrubState {
  uint64_t next_partition = 0;  // over the held partitions of all layers, in order
  uint64_t round = 0;           // the last pass over all table sets in which it was read to its end
  uint64_t passes = 0;
  uint64_t pass_ms = 0;       // spent on the pass under way
  uint64_t last_pass_ms = 0;  // the last whole pass took
  uint64_t pages_checked = 0;
  uint64_t bad_pages_found = 0;
  uint64_t bad_pages_repaired = 0;
  bool operator==(const ScrubState&) const = default;
};

// Of every table set's record.
inline constexpr std::string_view kScrubRecords = "scrub/";
std::string ScrubKey(TableSetId table_set);
// 0: not a key of ScrubKey.
TableSetId TableSetOfScrubKey(std::string_view key);

// `content_digest`: of the table set, so that another one of the same name starts from the
// beginning.
std::string ScrubStateToText(const ScrubState& state, const std::string& content_digest);
// A fresh state when the record is damaged or of other content: nothing is lost but the place.
ScrubState ParseScrubState(std::string_view text, const std::string& content_digest);

}  // namespace engram::memnode
