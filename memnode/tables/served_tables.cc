#include "memnode/tables/served_tables.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/base/threads.h"
#include "common/obs/log.h"
#include "common/table/procedural.h"

namespace engram::memnode {
namespace {

constexpr uint64_t kKnownAnswerSeed = 20261123;

// The first owned row and one anywhere in the owned partitions; none when nothing is owned.
std::vector<uint64_t> RowsToTell(const LayerPlan& layer, uint64_t seed) {
  if (layer.owned.empty()) return {};
  Rng rng(seed);
  const uint32_t partition = layer.owned[rng.NextBelow(layer.owned.size())];
  const uint64_t row = rng.NextBelow(layer.cut.RowCount(partition));
  return {layer.cut.FirstRow(layer.owned.front()), layer.cut.FirstRow(partition) + row};
}

std::string NameOf(const table::TableIdentity& identity) {
  return fmt::format("model={} version={}", identity.model, identity.version);
}

}  // namespace

ServedTables::ServedTables(table::TableIdentity identity, TablePlan plan, obs::Metrics& metrics)
    : identity_(std::move(identity)), plan_(std::move(plan)), map_(plan_.Map()) {
  for (const LayerPlan& layer : plan_.layers) {
    rows_served_.push_back(&metrics.GetCounter("engram_memnode_rows_served_total", "Rows sent",
                                               {{"model", identity_.model},
                                                {"version", identity_.version},
                                                {"layer", std::to_string(layer.layer_id)}}));
  }
}

ServedTables::~ServedTables() {
  stop_ = true;
  if (loader_.joinable()) loader_.join();
}

Result<std::shared_ptr<ServedTables>> ServedTables::InMemory(table::TableIdentity identity,
                                                             TablePlan plan,
                                                             std::shared_ptr<const Arena> arena,
                                                             obs::Metrics& metrics) {
  std::shared_ptr<ServedTables> tables(
      new ServedTables(std::move(identity), std::move(plan), metrics));
  tables->arena_ = std::move(arena);
  tables->complete_ = true;
  RETURN_IF_ERROR(tables->ShareLocally());
  RETURN_IF_ERROR(tables->ChooseKnownAnswers());
  return tables;
}

Result<std::shared_ptr<ServedTables>> ServedTables::Computed(table::TableIdentity identity,
                                                             TablePlan plan,
                                                             table::RowFormat format, uint64_t seed,
                                                             obs::Metrics& metrics) {
  std::shared_ptr<ServedTables> tables(
      new ServedTables(std::move(identity), std::move(plan), metrics));
  tables->SetRule(format, seed);
  tables->computed_ = true;
  RETURN_IF_ERROR(tables->ChooseKnownAnswers());
  return tables;
}

void ServedTables::ComputeRow(uint32_t layer_index, uint64_t row,
                              std::span<std::byte> stored) const {
  table::FillProceduralRow(rule_->format, rule_->seed, layer_index, row, stored.first(row_bytes()));
  table::SealRow(layer_index, row, stored);
}

Result<std::shared_ptr<ServedTables>> ServedTables::Open(RowStore& store, Manifest manifest,
                                                         const OpenTablesOptions& options,
                                                         obs::Metrics& metrics) {
  ASSIGN_OR_RETURN(TablePlan plan, MakePlan(manifest.identity, options.map, options.member));
  if (!Covers(manifest, plan)) {
    return FailedPrecondition(fmt::format(
        "version {} of {} was imported for members [{}] and lacks partitions that {} owns among "
        "[{}]: import it again from its folder",
        manifest.identity.version, manifest.identity.model, fmt::join(manifest.map.members, ", "),
        options.member, fmt::join(options.map.members, ", ")));
  }
  const uint64_t share_bytes = plan.Map().size_bytes();
  std::shared_ptr<ServedTables> tables(
      new ServedTables(manifest.identity, std::move(plan), metrics));
  ASSIGN_OR_RETURN(tables->reader_,
                   TableReader::Open(store, std::move(manifest), options.on_damage));
  tables->repair_ = options.repair;
  const uint64_t room = options.memory == nullptr ? share_bytes : options.memory->left();
  RETURN_IF_ERROR(
      CheckRowsFit(std::min(room, share_bytes), options.arena.pages, options.send_buffer_bytes)
          .WithContext(NameOf(tables->identity_)));
  bool all = true;
  if (options.memory != nullptr) {
    tables->share_ = MemoryBudget::Share(options.memory);
    all = tables->share_.Take(1, share_bytes) == 1;
  }
  if (!options.serve_while_loading) tables->cancel_open_ = options.cancel;
  RETURN_IF_ERROR(all ? tables->LoadAll(options, store) : tables->LoadSome(options, store));
  RETURN_IF_ERROR(tables->ChooseKnownAnswers());
  tables->cancel_open_ = nullptr;
  return tables;
}

PartitionLoadOptions ServedTables::LoadOptions(const OpenTablesOptions& options) {
  PartitionLoadOptions load;
  load.threads = options.load_threads;
  load.repair = options.repair;
  load.cancelled = [this] {
    const std::atomic<bool>* cancel = cancel_open_;
    return stop_ || (cancel != nullptr && *cancel);
  };
  return load;
}

Status ServedTables::LoadAll(const OpenTablesOptions& options, RowStore&) {
  ASSIGN_OR_RETURN(Arena allocated, Arena::Allocate(plan_, options.arena));
  const auto arena = std::make_shared<Arena>(std::move(allocated));
  arena_ = arena;
  RETURN_IF_ERROR(ShareLocally());
  std::vector<PartitionPlace> places = OwnedPartitions(plan_);
  for (PartitionPlace& place : places) {
    place.stored = arena->PartitionRows(place.layer_index, place.partition);
  }
  if (!options.serve_while_loading) {
    RETURN_IF_ERROR(LoadPartitions(*reader_, places, LoadOptions(options)));
    complete_ = true;
    return OkStatus();
  }
  TierOptions tier = options.tier;
  tier.pinned.clear();  // everything will be in memory
  ASSIGN_OR_RETURN(tier_, Tier::Open(*reader_, plan_, tier));
  return LoadInBackground(std::move(places), LoadOptions(options));
}

Status ServedTables::LoadInBackground(std::vector<PartitionPlace> places,
                                      PartitionLoadOptions load) {
  load.on_loaded = [this](const PartitionPlace& place) {
    tier_->residency().Publish(place.layer_index, place.partition, place.stored);
  };
  const auto fill = [this, places = std::move(places), load = std::move(load)] {
    const Status loaded = LoadPartitions(*reader_, places, load);
    if (loaded.ok()) {
      complete_ = true;
      obs::LogInfo(fmt::format("all rows are in memory {}", NameOf(identity_)));
    } else if (loaded.code() != Code::kCancelled) {
      obs::LogError(fmt::format("loading ended, rows are read from the store from now on {} why={}",
                                NameOf(identity_), loaded.message()));
    }
  };
  ASSIGN_OR_RETURN(loader_, StartThread("fill memory", fill));
  return OkStatus();
}

Status ServedTables::LoadSome(const OpenTablesOptions& options, RowStore& store) {
  TierOptions tier = options.tier;
  tier.pages = options.arena.pages;
  tier.load = LoadOptions(options);
  tier.cache_bytes = share_.Take(tier.cache_bytes, 1);
  tier.pinned_bytes_max = share_.Take(options.memory->left() / 2, 1);
  tier.memory = &share_;
  ASSIGN_OR_RETURN(tier_, Tier::Open(*reader_, plan_, tier));
  const uint64_t in_use = tier_->memory_bytes() - tier.cache_bytes;
  share_.GiveBack(tier.pinned_bytes_max - std::min(tier.pinned_bytes_max, in_use));
  if (options.serve_while_loading) {
    const auto fill = [this, &store, period = options.balance_period] {
      Status filled = tier_->FillMemory(store).status();
      if (!stop_ && (filled.ok() || filled.code() != Code::kCancelled)) {
        const Status balanced = tier_->KeepBalanced(store, period);
        if (filled.ok()) filled = balanced;
      }
      if (!filled.ok() && filled.code() != Code::kCancelled) {
        obs::LogError(fmt::format("loading ended {} why={}", NameOf(identity_), filled.message()));
      }
    };
    ASSIGN_OR_RETURN(loader_, StartThread("fill memory", fill));
    return OkStatus();
  }
  RETURN_IF_ERROR(tier_->FillMemory(store).status());
  return tier_->KeepBalanced(store, options.balance_period);
}

uint64_t ServedTables::memory_bytes() const {
  if (arena_ != nullptr) return arena_->size_bytes();
  return tier_ == nullptr ? 0 : tier_->memory_bytes();
}

ServedTables::Resident ServedTables::resident() const {
  Resident resident;
  for (const PartitionPlace& place : OwnedPartitions(plan_)) {
    const uint64_t bytes =
        plan_.layers[place.layer_index].cut.RowCount(place.partition) * stored_row_bytes();
    ++resident.partitions_owned;
    resident.bytes_owned += bytes;
    if (!complete() &&
        (tier_ == nullptr || !tier_->residency().resident(place.layer_index, place.partition))) {
      continue;
    }
    ++resident.partitions;
    resident.bytes += bytes;
  }
  return resident;
}

Status ServedTables::ShareLocally() {
  if (arena_->shared_fd() < 0) return OkStatus();
  ASSIGN_OR_RETURN(local_, net::FdServer::Start(arena_->shared_fd()));
  return OkStatus();
}

std::shared_lock<std::shared_mutex> ServedTables::Use() const {
  return complete() || computed() ? std::shared_lock<std::shared_mutex>()
                                  : tier_->residency().Use();
}

Status ServedTables::Find(uint32_t layer_index, std::span<const uint64_t> rows,
                          std::span<const std::byte*> addresses) const {
  if (complete()) return arena_->Find(layer_index, rows, addresses);
  if (computed()) {
    std::vector<uint64_t> unused(rows.size());
    std::fill(addresses.begin(), addresses.end(), nullptr);
    return map_.FindOffsets(layer_index, rows, unused);
  }
  return tier_->Find(layer_index, rows, addresses);
}

Status ServedTables::ReadRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out) const {
  CHECK_EQ(out.size(), row_bytes());
  {
    const auto in_use = Use();
    const std::byte* address = nullptr;
    RETURN_IF_ERROR(Find(layer_index, {&row, 1}, {&address, 1}));
    if (address != nullptr) {
      std::copy_n(address, out.size(), out.data());
      return OkStatus();
    }
  }
  if (computed()) {
    std::vector<std::byte> stored(stored_row_bytes());
    ComputeRow(layer_index, row, stored);
    std::copy_n(stored.data(), out.size(), out.data());
    return OkStatus();
  }
  std::string scratch;
  const uint64_t page = reader_->PageOfRow(layer_index, row);
  ASSIGN_OR_RETURN(const auto rows, reader_->ReadPage(layer_index, page, &scratch));
  const uint64_t index = row - reader_->FirstRowOfPage(layer_index, page);
  std::copy_n(rows.data() + index * out.size(), out.size(), out.data());
  return OkStatus();
}

bool ServedTables::CopyRows(uint32_t layer_index, uint64_t first, std::span<std::byte> out) const {
  const auto in_use = Use();
  for (size_t at = 0; at < out.size(); at += row_bytes(), ++first) {
    const std::byte* address = nullptr;
    if (!Find(layer_index, {&first, 1}, {&address, 1}).ok() || address == nullptr) return false;
    std::copy_n(address, row_bytes(), out.data() + at);
  }
  return true;
}

Status ServedTables::ChooseKnownAnswers() {
  std::vector<std::byte> bytes(row_bytes());
  for (uint32_t i = 0; i < layer_count(); ++i) {
    for (const uint64_t row : RowsToTell(plan_.layers[i], kKnownAnswerSeed + i)) {
      RETURN_IF_ERROR(ReadRow(i, row, bytes));
      Sha256 hash;
      hash.Update(bytes);
      known_answers_.push_back({.layer_index = i, .row = row, .sha256_hex = ToHex(hash.Finish())});
    }
  }
  return OkStatus();
}

}  // namespace engram::memnode
