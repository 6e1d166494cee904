#include "memnode/node/status_reply.h"

#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace engram::memnode {
namespace {

std::string MillisOf(Nanos time) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
}

std::vector<VersionInfo> VersionsOf(const StatusSources& sources) {
  if (sources.versions != nullptr) return sources.versions->List();
  std::vector<VersionInfo> all;
  if (sources.loaded == nullptr) return all;
  for (const TablesPtr& tables : sources.loaded->All()) {
    VersionInfo& info = all.emplace_back();
    info.model = tables->identity().model;
    info.version = tables->identity().version;
    info.content_digest = tables->identity().content_digest;
    info.rows_held = tables->plan().OwnedRows();
    info.published = info.loaded = true;
  }
  return all;
}

// Of the published versions.
struct Share {
  uint64_t partitions = 0, rows = 0, rows_in_memory = 0;

  void Add(const VersionInfo& info, const ServedTables* tables,
           const ServedTables::Resident& resident) {
    rows += info.rows_held;
    if (tables == nullptr) return;
    partitions += resident.partitions_owned;
    const auto cold = tables->cold_figures();
    const bool computed = tables->memory_bytes() == 0 && !cold;
    const uint64_t here =
        computed ? info.rows_held
                 : resident.bytes / tables->stored_row_bytes() + (cold ? cold->pinned_rows : 0);
    rows_in_memory += std::min(info.rows_held, here);
  }
};

json::value StoreJson(const StoreWatch::Seen& seen) {
  uint64_t bytes = 0;
  for (const auto& [id, of_one] : seen.stored_bytes) bytes += of_one;
  const Status& problem = seen.readable.ok() ? seen.writable : seen.readable;
  return json::object{{"bytes", std::to_string(bytes)},
                      {"free_bytes", seen.free_bytes ? std::to_string(*seen.free_bytes) : ""},
                      {"age_ms", MillisOf(seen.age)},
                      {"waiting_ms", MillisOf(seen.waiting)},
                      {"problem", problem.message()},
                      {"full", problem.code() == Code::kResourceExhausted}};
}

json::array DamageJson(const Upkeep& upkeep, const std::vector<VersionInfo>& versions) {
  const std::vector<Damage> damage = upkeep.damage();
  json::array list;
  for (const VersionInfo& info : versions) {
    const TableSetId id = TableSetIdOf(info.model, info.version);
    std::set<std::pair<uint32_t, uint32_t>> partitions;
    std::string why;
    for (const Damage& bad : damage) {
      if (bad.table_set != id) continue;
      if (partitions.empty()) why = bad.why;
      partitions.emplace(bad.layer_index, bad.partition);
    }
    if (partitions.empty()) continue;
    list.push_back(json::object{{"model", info.model},
                                {"version", info.version},
                                {"partitions", std::to_string(partitions.size())},
                                {"why", why}});
  }
  return list;
}

}  // namespace

json::object VersionJson(const VersionInfo& info, uint64_t stored_bytes,
                         const ServedTables::Resident& resident) {
  return {{"model", info.model},
          {"version", info.version},
          {"base", info.base_version},
          {"digest", info.content_digest},
          {"rows_held", std::to_string(info.rows_held)},
          {"stored_bytes", std::to_string(stored_bytes)},
          {"generation", std::to_string(info.generation)},
          {"published", info.published},
          {"prepared", info.prepared_generation != 0 || info.promised_generation != 0},
          {"prepared_generation",
           std::to_string(std::max(info.prepared_generation, info.promised_generation))},
          {"promised_generation", std::to_string(info.promised_generation)},
          {"pinned", info.pinned},
          {"rolled_back", info.rolled_back},
          {"loaded", info.loaded},
          {"partitions_in_memory", std::to_string(resident.partitions)},
          {"partitions_owned", std::to_string(resident.partitions_owned)},
          {"bytes_in_memory", std::to_string(resident.bytes)},
          {"bytes_owned", std::to_string(resident.bytes_owned)},
          {"readers", std::to_string(info.readers)},
          {"problem", info.problem},
          {"incomplete", info.incomplete}};
}

json::object TablesStatus(const StatusSources& sources) {
  StoreWatch::Seen store;
  if (sources.store != nullptr) store = sources.store->Last();
  const std::vector<VersionInfo> infos = VersionsOf(sources);
  Share share;
  json::array versions;
  for (const VersionInfo& info : infos) {
    const TableSetId id = TableSetIdOf(info.model, info.version);
    const TablesPtr tables = sources.loaded->Find(id);
    const auto resident = tables == nullptr ? ServedTables::Resident() : tables->resident();
    if (info.published) share.Add(info, tables.get(), resident);
    versions.push_back(VersionJson(info, store.stored_bytes[id], resident));
  }
  uint64_t memory_bytes = 0;
  if (sources.loaded != nullptr) {
    for (const TablesPtr& tables : sources.loaded->All()) memory_bytes += tables->memory_bytes();
  }
  json::array reserved;
  if (sources.reservations != nullptr) {
    for (const Reservations::Reserved& one : sources.reservations->List()) {
      reserved.push_back(json::object{{"model", one.model}, {"holder", one.holder}});
    }
  }
  const bool watched = sources.store != nullptr;
  return {{"partitions", std::to_string(share.partitions)},
          {"rows", std::to_string(share.rows)},
          {"rows_in_memory", std::to_string(share.rows_in_memory)},
          {"memory_bytes", std::to_string(memory_bytes)},
          {"store", watched ? StoreJson(store) : json::value()},
          {"versions", std::move(versions)},
          {"damage", watched ? DamageJson(*sources.upkeep, infos) : json::array()},
          {"unmended", std::to_string(sources.upkeep == nullptr ? 0 : sources.upkeep->unmended())},
          {"reserved", std::move(reserved)}};
}

bool ServesAny(const json::object& tables_status) {
  return std::ranges::any_of(tables_status.at("versions").as_array(), [](const json::value& v) {
    return v.at("published").as_bool() && v.at("loaded").as_bool();
  });
}

}  // namespace engram::memnode
