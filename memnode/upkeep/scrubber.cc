#include "memnode/upkeep/scrubber.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/threads.h"
#include "common/obs/log.h"

namespace engram::memnode {
namespace {

constexpr std::string_view kManifestRecords = "manifest/";
constexpr size_t kToldMax = 1000;
constexpr Nanos kWaitStep = std::chrono::seconds(1);

uint64_t Millis(Nanos time) {
  return static_cast<uint64_t>(
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(time).count()));
}

}  // namespace

Scrubber::Metrics::Metrics(obs::Metrics& registry)
    : bytes(registry.GetCounter("engram_memnode_scrub_bytes_total",
                                "Row bytes read by the scrubber")),
      pages(registry.GetCounter("engram_memnode_scrub_pages_total", "Pages the scrubber checked")),
      passes(registry.GetCounter("engram_memnode_scrub_passes_total",
                                 "Table sets the scrubber read to their end")),
      pass_seconds(registry.GetGauge("engram_memnode_scrub_pass_seconds",
                                     "Time of the last whole pass over a table set")),
      found(registry.GetCounter("engram_memnode_bad_pages_found_total",
                                "Damaged pages found, by whomever")),
      repaired(registry.GetCounter("engram_memnode_bad_pages_repaired_total",
                                   "Damaged pages made whole again")),
      failures(registry.GetCounter("engram_memnode_repair_failures_total",
                                   "Repairs for which there was no sound copy")),
      reports_dropped(registry.GetCounter("engram_memnode_damage_reports_dropped_total",
                                          "Reports of damage beyond what may wait")),
      bad(registry.GetGauge("engram_memnode_bad_pages", "Damaged pages in the store now")) {}

TableSetId Scrubber::Table::id() const {
  const table::TableIdentity& identity = reader->manifest().identity;
  return TableSetIdOf(identity.model, identity.version);
}

Scrubber::Scrubber(RowStore& store, Repairer& repairer, obs::Metrics& metrics,
                   const ScrubberOptions& options)
    : store_(store),
      repairer_(repairer),
      options_(options),
      clock_(*options.clock),
      metrics_(metrics),
      rate_(options.mib_per_s, *options.clock) {}

Status Scrubber::Start() {
  ASSIGN_OR_RETURN(thread_, StartThread("scrub", [this] { Run(); }));
  return OkStatus();
}

Scrubber::~Scrubber() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool Scrubber::ReportDamage(TableSetId table_set, uint32_t layer_index, uint64_t page) {
  const Report report(table_set, layer_index, page);
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.contains(report)) return true;
    if (reports_.size() >= options_.reports_max) {
      metrics_.reports_dropped.Add();
      return false;
    }
    waiting_.insert(report);
    reports_.push_back(report);
  }
  wake_.notify_all();
  return true;
}

void Scrubber::Refresh() {
  {
    const std::lock_guard lock(mutex_);
    refresh_ = true;
  }
  wake_.notify_all();
}

std::vector<Damage> Scrubber::Bad() const {
  const std::lock_guard lock(mutex_);
  std::vector<Damage> all;
  for (const auto& [partition, bad] : bad_) {
    for (const Damage& damage : bad.damage) {
      if (all.size() == options_.listed_max) return all;
      all.push_back(damage);
    }
  }
  return all;
}

std::map<TableSetId, ScrubState> Scrubber::States() const {
  const std::lock_guard lock(mutex_);
  return states_;
}

std::vector<IncompleteImport> Scrubber::Incomplete() const {
  const std::lock_guard lock(mutex_);
  return incomplete_;
}

bool Scrubber::stopping() const {
  const std::lock_guard lock(mutex_);
  return stop_;
}

// False when a report or a refresh comes first; true when it is time, or when it stops.
bool Scrubber::WaitUntil(TimePoint time, bool or_refresh) {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (!reports_.empty() || (or_refresh && refresh_)) return false;
    const TimePoint now = clock_.Now();
    if (now >= time) return true;
    wake_.wait_for(lock, std::min<Nanos>(time - now, kWaitStep));
  }
  return true;
}

void Scrubber::Run() {
  while (!stopping()) {
    RefreshTables();
    LookAtReports();
    const bool due = options_.mib_per_s > 0 && clock_.Now() >= idle_until_;
    Table* next = due ? NextTable() : nullptr;
    if (next != nullptr) {
      ScrubNext(*next);
    } else {
      const bool idle = options_.mib_per_s > 0 && clock_.Now() < idle_until_;
      WaitUntil(idle ? std::min(idle_until_, refresh_at_) : refresh_at_, /*or_refresh=*/true);
    }
  }
  for (auto& [id, table] : tables_) Save(table);
}

void Scrubber::RefreshTables() {
  {
    const std::lock_guard lock(mutex_);
    if (!refresh_ && clock_.Now() < refresh_at_) return;
    refresh_ = false;
  }
  refresh_at_ = clock_.Now() + options_.refresh_period;
  const Status updated = UpdateTables();
  if (!updated.ok() && told_.size() < kToldMax && told_.insert(updated.message()).second) {
    obs::LogError(fmt::format("scrubber: {}", updated.message()));
  }
  for (const Report& report : std::exchange(unknown_, {})) LookAt(report);
}

Status Scrubber::UpdateTables() {
  ASSIGN_OR_RETURN(const auto manifests, store_.ReadRecords(kManifestRecords));
  ASSIGN_OR_RETURN(const auto states, store_.ReadRecords(kScrubRecords));
  RemoveStale(manifests, states);
  Status first_error;
  auto incomplete = IncompleteImports(store_);
  if (incomplete.ok()) {
    const std::lock_guard lock(mutex_);
    incomplete_ = *std::move(incomplete);
  } else {
    first_error = incomplete.status();
  }
  for (const auto& [key, text] : manifests) {
    const bool open = std::any_of(
        tables_.begin(), tables_.end(),
        [&text = text](const auto& entry) { return entry.second.manifest_text == text; });
    if (open) continue;
    const auto state =
        states.find(std::string(kScrubRecords) + key.substr(kManifestRecords.size()));
    const Status opened = OpenTable(text, state == states.end() ? "" : state->second);
    if (!opened.ok() && first_error.ok()) first_error = opened.WithContext(key);
  }
  return first_error;
}

Status Scrubber::OpenTable(const std::string& manifest_text, const std::string& scrub_text) {
  ASSIGN_OR_RETURN(Manifest manifest, ParseManifest(manifest_text));
  Table table;
  table.manifest_text = manifest_text;
  for (uint32_t i = 0; i < manifest.layers.size(); ++i) {
    for (const uint32_t partition : manifest.layers[i].held) table.places.push_back({i, partition});
  }
  table.state = ParseScrubState(scrub_text, manifest.identity.content_digest);
  if (table.state.next_partition >= table.places.size()) table.state.next_partition = 0;
  table.saved = table.state;
  table.saved_at = clock_.Now();
  round_ = std::max(round_, table.state.round);
  ASSIGN_OR_RETURN(table.reader, TableReader::Open(store_, std::move(manifest)));
  Publish(table);
  tables_[table.id()] = std::move(table);
  return OkStatus();
}

// Forgets dropped table sets, and records written while they were being dropped.
void Scrubber::RemoveStale(const std::map<std::string, std::string>& manifests,
                           const std::map<std::string, std::string>& states) {
  const auto gone = [&](TableSetId id) {
    const auto it = manifests.find(fmt::format("{}{:016x}", kManifestRecords, id));
    return it == manifests.end();
  };
  std::erase_if(tables_, [&](const auto& entry) { return gone(entry.first); });
  std::vector<RecordChange> stale;
  for (const auto& [key, text] : states) {
    if (gone(TableSetOfScrubKey(key))) stale.push_back({key, std::nullopt});
  }
  if (!stale.empty()) {
    const Status removed = store_.WriteProgress(stale);
    if (!removed.ok()) obs::LogWarn(fmt::format("scrubber: {}", removed.message()));
  }
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(states_, [&](const auto& entry) { return gone(entry.first); });
    std::erase_if(bad_, [&](const auto& entry) { return gone(std::get<0>(entry.first)); });
  }
  TellBad();
}

// What was begun first, then what was not read in this round; null when the round is over.
Scrubber::Table* Scrubber::NextTable() {
  Table* next = nullptr;
  for (auto& [id, table] : tables_) {
    if (table.state.next_partition > 0) return &table;
    if (next == nullptr && table.state.round < round_) next = &table;
  }
  if (next == nullptr && !tables_.empty()) {
    ++round_;
    idle_until_ = clock_.Now() + options_.idle_pause;
  }
  return next;
}

void Scrubber::ScrubNext(Table& table) {
  ScrubState& state = table.state;
  const TimePoint begin = clock_.Now();
  if (state.next_partition < table.places.size()) {
    const Place place = table.places[state.next_partition];
    Check(table, place, /*throttled=*/true);
    ++state.next_partition;
    state.pages_checked += table.reader->PageCount(place.layer_index, place.partition);
  }
  state.pass_ms += Millis(clock_.Now() - begin);
  const bool ended = state.next_partition >= table.places.size();
  if (ended) {
    state.next_partition = 0;
    state.round = round_;
    ++state.passes;
    state.last_pass_ms = std::exchange(state.pass_ms, 0);
    metrics_.passes.Add();
    metrics_.pass_seconds.Set(static_cast<double>(state.last_pass_ms) / 1000);
  }
  Publish(table);
  if (ended || clock_.Now() - table.saved_at >= options_.save_period) Save(table);
}

// Reports do not wait for the rate.
void Scrubber::Throttle(uint64_t bytes) {
  metrics_.bytes.Add(static_cast<double>(bytes));
  const TimePoint go = rate_.Take(bytes);
  while (!WaitUntil(go, /*or_refresh=*/false)) LookAtReports();
}

void Scrubber::LookAtReports() {
  while (true) {
    Report report;
    {
      const std::lock_guard lock(mutex_);
      if (reports_.empty() || stop_) return;
      report = reports_.front();
      reports_.pop_front();
      waiting_.erase(report);
    }
    if (LookAt(report)) continue;
    const std::lock_guard lock(mutex_);
    if (unknown_.size() < options_.reports_max) unknown_.push_back(report);
    refresh_ = true;
  }
}

// False: of a table set that was not there at the last refresh.
bool Scrubber::LookAt(const Report& report) {
  const auto& [id, layer_index, page] = report;
  const auto found = tables_.find(id);
  if (found == tables_.end()) return false;
  Table& table = found->second;
  if (layer_index >= table.reader->manifest().layers.size()) return true;
  const table::LayerPartitions& cut = table.reader->cut(layer_index);
  const uint64_t pages = cut.rows_per_partition / cut.rows_per_page;
  const auto& held = table.reader->manifest().layers[layer_index].held;
  const auto partition = static_cast<uint32_t>(page / pages);
  if (!std::binary_search(held.begin(), held.end(), partition)) return true;
  Check(table, {layer_index, partition}, /*throttled=*/false);
  Publish(table);
  return true;
}

void Scrubber::Check(Table& table, Place place, bool throttled) {
  const TableReader& reader = *table.reader;
  const auto visit = [&](uint64_t, std::span<const std::byte> rows) {
    if (throttled) Throttle(rows.size());
  };
  const Status read = reader.ReadPartition(place.layer_index, place.partition, visit);
  metrics_.pages.Add(static_cast<double>(reader.PageCount(place.layer_index, place.partition)));
  std::vector<Damage> damage;
  if (!read.ok()) damage = FindDamage(reader, place.layer_index, place.partition);
  if (damage.empty()) {
    Forget({table.id(), place.layer_index, place.partition});
  } else {
    Mend(table, place, std::move(damage));
  }
}

void Scrubber::Mend(Table& table, Place place, std::vector<Damage> damage) {
  const table::TableIdentity& identity = table.reader->manifest().identity;
  const auto manifest = FindManifest(store_, identity.model, identity.version);
  if (manifest.ok() && !*manifest) return Refresh();  // dropped meanwhile: nothing is wrong
  const Partition partition(table.id(), place.layer_index, place.partition);
  bool known = false;
  if (!MayRepair(partition, &known)) return;
  if (!known) {
    table.state.bad_pages_found += damage.size();
    metrics_.found.Add(static_cast<double>(damage.size()));
    obs::LogWarn(fmt::format(
        "damage in the store model={} version={} layer={} partition={} pages={} first=\"{}\"",
        identity.model, identity.version, identity.layers[place.layer_index].layer_id,
        place.partition, damage.size(), damage.front().why));
  }
  const auto repaired =
      repairer_.Repair(identity.model, identity.version, place.layer_index, place.partition);
  if (!repaired.ok()) {
    metrics_.failures.Add();
    if (!known) obs::LogError(fmt::format("repair failed: {}", repaired.status().message()));
    return Failed(partition, std::move(damage));
  }
  table.state.bad_pages_repaired += damage.size();
  metrics_.repaired.Add(static_cast<double>(damage.size()));
  obs::LogInfo(fmt::format("repaired model={} version={} layer={} partition={}: {}", identity.model,
                           identity.version, identity.layers[place.layer_index].layer_id,
                           place.partition, repaired->ToText()));
  Forget(partition);
}

// False while a failed repair is not to be tried again yet.
bool Scrubber::MayRepair(const Partition& partition, bool* known) const {
  const std::lock_guard lock(mutex_);
  const auto bad = bad_.find(partition);
  *known = bad != bad_.end();
  return !*known || clock_.Now() >= bad->second.retry_at;
}

void Scrubber::Failed(const Partition& partition, std::vector<Damage> damage) {
  {
    const std::lock_guard lock(mutex_);
    if (bad_.size() < options_.listed_max || bad_.contains(partition)) {
      bad_[partition] = {std::move(damage), clock_.Now() + options_.retry_pause};
    }
  }
  TellBad();
}

void Scrubber::Forget(const Partition& partition) {
  {
    const std::lock_guard lock(mutex_);
    if (bad_.erase(partition) == 0) return;
  }
  TellBad();
}

void Scrubber::TellBad() {
  const std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const auto& [partition, bad] : bad_) count += bad.damage.size();
  metrics_.bad.Set(static_cast<double>(count));
}

void Scrubber::Publish(const Table& table) {
  const std::lock_guard lock(mutex_);
  states_[table.id()] = table.state;
}

// A state that cannot be saved costs only the place after a restart.
void Scrubber::Save(Table& table) {
  table.saved_at = clock_.Now();
  if (table.state == table.saved) return;
  const RecordChange record = {
      ScrubKey(table.id()),
      ScrubStateToText(table.state, table.reader->manifest().identity.content_digest)};
  const Status written = store_.WriteProgress({&record, 1});
  if (written.ok()) {
    table.saved = table.state;
  } else if (told_.size() < kToldMax && told_.insert(written.message()).second) {
    obs::LogWarn(fmt::format("scrubber: its place is not kept: {}", written.message()));
  }
}

}  // namespace engram::memnode
