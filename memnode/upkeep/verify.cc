#include "memnode/upkeep/verify.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>

#include "common/base/clock.h"
#include "common/base/machine_limits.h"
#include "common/base/sha256.h"
#include "common/base/threads.h"
#include "memnode/upkeep/read_rate.h"

namespace engram::memnode {
namespace {

constexpr Nanos kProgressPeriod = std::chrono::milliseconds(100);
constexpr Nanos kWaitStep = std::chrono::milliseconds(20);

struct Place {
  uint32_t layer_index = 0;
  uint32_t partition = 0;
};

class Verification {
 public:
  Verification(const TableReader& reader, const VerifyOptions& options)
      : reader_(reader), options_(options), rate_(options.mib_per_s, *options.clock) {
    const Manifest& manifest = reader.manifest();
    report_.holds_all = true;
    for (uint32_t i = 0; i < manifest.layers.size(); ++i) {
      VerifyReport::Layer& layer = report_.layers.emplace_back();
      layer.layer_id = manifest.identity.layers[i].layer_id;
      for (const uint32_t partition : manifest.layers[i].held) {
        places_.push_back({i, partition});
        progress_.pages_total += reader.PageCount(i, partition);
      }
      report_.holds_all &= manifest.layers[i].held.size() == reader.cut(i).partition_count;
    }
  }

  Result<VerifyReport> Run() {
    const TimePoint begin = options_.clock->Now();
    const size_t count =
        options_.threads > 0 ? static_cast<size_t>(options_.threads) : ThreadsPerCpu(1);
    // Fewer threads take longer, no more.
    RunOnThreads(std::min(count, places_.size()), "verify", [this] { Work(); });
    if (Stopped()) return Cancelled("verification was cancelled");
    for (auto& [place, damage] : damage_) report_.damage.push_back(std::move(damage));
    report_.bytes = progress_.bytes_done;
    report_.seconds = std::chrono::duration<double>(options_.clock->Now() - begin).count();
    if (options_.on_progress) options_.on_progress(progress_);
    return std::move(report_);
  }

 private:
  bool Stopped() const { return options_.cancel != nullptr && options_.cancel->load(); }

  void Work() {
    for (size_t i = next_++; i < places_.size() && !Stopped(); i = next_++) Check(places_[i]);
  }

  void Check(const Place& place) {
    const auto visit = [this](uint64_t, std::span<const std::byte> rows) { Read(rows.size()); };
    const Status read = reader_.ReadPartition(place.layer_index, place.partition, visit);
    std::vector<Damage> found;
    if (!read.ok()) found = FindDamage(reader_, place.layer_index, place.partition);
    Count(place, std::move(found));
  }

  void Read(uint64_t bytes) {
    for (TimePoint go = rate_.Take(bytes), now; !Stopped() && (now = options_.clock->Now()) < go;) {
      std::this_thread::sleep_for(std::min<Nanos>(go - now, kWaitStep));
    }
    const std::lock_guard lock(mutex_);
    progress_.bytes_done += bytes;
    Tell();
  }

  void Tell() {
    const TimePoint now = options_.clock->Now();
    if (!options_.on_progress || now - told_ < kProgressPeriod) return;
    told_ = now;
    options_.on_progress(progress_);
  }

  void Count(const Place& place, std::vector<Damage> found) {
    const uint64_t pages = reader_.PageCount(place.layer_index, place.partition);
    const std::lock_guard lock(mutex_);
    VerifyReport::Layer& layer = report_.layers[place.layer_index];
    layer.pages += pages;
    ++layer.partitions;
    if (!found.empty()) ++layer.bad_partitions;
    progress_.pages_done += pages;
    for (Damage& damage : found) {
      if (options_.on_damage) {
        options_.on_damage(
            damage.table_set, damage.layer_index,
            damage.page.value_or(reader_.FirstPage(damage.layer_index, damage.partition)));
      }
      if (damage.page) ++layer.bad_pages, ++progress_.bad_pages;
      damage_.emplace(std::tuple(place.layer_index, place.partition, damage.page.value_or(0)),
                      std::move(damage));
      if (damage_.size() > options_.listed_max) damage_.erase(std::prev(damage_.end()));
    }
    Tell();
  }

  const TableReader& reader_;
  const VerifyOptions& options_;
  ReadRate rate_;
  std::vector<Place> places_;
  std::atomic<size_t> next_ = 0;

  std::mutex mutex_;  // of the rest
  VerifyReport report_;
  VerifyProgress progress_;
  TimePoint told_;
  std::map<std::tuple<uint32_t, uint32_t, uint64_t>, Damage> damage_;  // listed_max at most
};

uint64_t Sum(const std::vector<VerifyReport::Layer>& layers, uint64_t VerifyReport::Layer::*what) {
  uint64_t sum = 0;
  for (const VerifyReport::Layer& layer : layers) sum += layer.*what;
  return sum;
}

}  // namespace

uint64_t VerifyReport::partitions() const { return Sum(layers, &Layer::partitions); }
uint64_t VerifyReport::pages() const { return Sum(layers, &Layer::pages); }
uint64_t VerifyReport::bad_partitions() const { return Sum(layers, &Layer::bad_partitions); }
uint64_t VerifyReport::bad_pages() const { return Sum(layers, &Layer::bad_pages); }

std::vector<Damage> FindDamage(const TableReader& reader, uint32_t layer_index,
                               uint32_t partition) {
  const Manifest& manifest = reader.manifest();
  const Damage template_damage = {
      .table_set = TableSetIdOf(manifest.identity.model, manifest.identity.version),
      .layer_index = layer_index,
      .partition = partition,
      .page = {},
      .why = {}};
  std::vector<Damage> found;
  std::string scratch;
  Sha256 hash;
  const uint64_t first = reader.FirstPage(layer_index, partition);
  for (uint64_t i = 0; i < reader.PageCount(layer_index, partition); ++i) {
    const auto rows = reader.ReadPage(layer_index, first + i, &scratch);
    if (rows.ok()) {
      hash.Update(*rows);
      continue;
    }
    Damage& damage = found.emplace_back(template_damage);
    damage.page = first + i;
    damage.why = rows.status().message();
  }
  if (found.empty() && hash.Finish() != manifest.layers[layer_index].digests[partition]) {
    found.push_back(template_damage);
    found.back().why = "its pages are sound, but together they do not match its SHA-256";
  }
  return found;
}

Result<VerifyReport> VerifyTables(const TableReader& reader, const VerifyOptions& options) {
  return Verification(reader, options).Run();
}

}  // namespace engram::memnode
