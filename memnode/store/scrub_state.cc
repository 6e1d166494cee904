#include "memnode/store/scrub_state.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "common/io/object_reader.h"

namespace engram::memnode {
namespace {

constexpr std::pair<std::string_view, uint64_t ScrubState::*> kFields[] = {
    {"next_partition", &ScrubState::next_partition},
    {"round", &ScrubState::round},
    {"passes", &ScrubState::passes},
    {"pass_ms", &ScrubState::pass_ms},
    {"last_pass_ms", &ScrubState::last_pass_ms},
    {"pages_checked", &ScrubState::pages_checked},
    {"bad_pages_found", &ScrubState::bad_pages_found},
    {"bad_pages_repaired", &ScrubState::bad_pages_repaired},
};

}  // namespace

std::string ScrubKey(TableSetId table_set) {
  return fmt::format("{}{:016x}", kScrubRecords, table_set);
}

TableSetId TableSetOfScrubKey(std::string_view key) {
  TableSetId id = 0;
  if (!key.starts_with(kScrubRecords)) return 0;
  const char* end = key.data() + key.size();
  const auto parsed = std::from_chars(key.data() + kScrubRecords.size(), end, id, 16);
  return parsed.ec == std::errc() && parsed.ptr == end ? id : 0;
}

std::string ScrubStateToText(const ScrubState& state, const std::string& content_digest) {
  json::object object = {{"content_digest", content_digest}};
  for (const auto& [name, field] : kFields) object[name] = static_cast<int64_t>(state.*field);
  return json::serialize(object);
}

ScrubState ParseScrubState(std::string_view text, const std::string& content_digest) {
  const auto document = io::ParseJson(text, "scrub state");
  if (!document.ok()) return {};
  io::ObjectReader read(*document, "scrub state");
  std::string digest;
  ScrubState state;
  read.String("content_digest", digest);
  for (const auto& [name, field] : kFields) read.Int(name, 0, INT64_MAX, state.*field);
  return read.status().ok() && digest == content_digest ? state : ScrubState();
}

}  // namespace engram::memnode
