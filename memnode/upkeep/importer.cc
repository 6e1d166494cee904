#include "memnode/upkeep/importer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/machine_limits.h"
#include "common/base/sha256_pair.h"
#include "common/base/threads.h"
#include "common/obs/log.h"
#include "memnode/store/import_progress.h"
#include "memnode/store/page.h"
#include "memnode/store/table_reader.h"

namespace engram::memnode {
namespace {

constexpr Nanos kProgressEvery = std::chrono::milliseconds(100);

// Partitions that share a file.
struct Group {
  uint32_t layer_index = 0;
  uint32_t first = 0, end = 0;  // partitions
};

std::vector<Group> Groups(const TablePlan& plan) {
  std::vector<Group> groups;
  for (uint32_t i = 0; i < plan.layers.size(); ++i) {
    const table::LayerPartitions& cut = plan.layers[i].cut;
    const uint32_t step = PartitionsPerFile(cut, plan.row_bytes);
    for (uint32_t first = 0; first < cut.partition_count; first += step) {
      groups.push_back({i, first, std::min(first + step, cut.partition_count)});
    }
  }
  return groups;
}

// What one worker has made of a group.
struct Done {
  Group group;
  std::vector<Sha256Digest> digests;
  std::unique_ptr<PageWriter> file;   // null: nothing of it is stored here
  std::vector<RecordChange> changed;  // delta: which pages the file has
};

class Import {
 public:
  Import(const client::TableSource& source, const TablePlan& plan, RowStore& store,
         const ImportOptions& options, Manifest& manifest)
      : source_(source),
        plan_(plan),
        store_(store),
        options_(options),
        manifest_(manifest),
        id_(TableSetIdOf(manifest.identity.model, manifest.identity.version)) {
    progress_.rows_total = plan.TotalRows();
  }

  // `known`: the manifest of a complete import of the same tables for other members, or null.
  Status Run(const Manifest* known) {
    ASSIGN_OR_RETURN(std::vector<Group> todo, Prepare(known));
    if (!manifest_.base_version.empty() && !options_.whole_pages) RETURN_IF_ERROR(OpenBase());
    next_ = 0;
    const ThreadsRun run = RunOnThreads(Threads(todo.size()), "import", [&] { Work(todo); });
    if (!run.shortage.ok()) {
      obs::LogWarn(fmt::format("import goes on with fewer threads threads={} why={}", run.count,
                               run.shortage.message()));
    }
    // Also after a cancellation: what is finished need not be done again.
    if (error_.ok() || error_.code() == Code::kCancelled) {
      const Status last = Ingest();
      if (error_.ok()) error_ = last;
    }
    Tell(true);
    return error_;
  }

 private:
  size_t Threads(size_t group_count) const {
    uint64_t partition_bytes = 1;
    for (const LayerPlan& layer : plan_.layers) {
      partition_bytes = std::max(partition_bytes, layer.cut.RowCount(0) * plan_.row_bytes);
    }
    const size_t wanted =
        options_.threads > 0 ? static_cast<size_t>(options_.threads) : ThreadsPerCpu(4);
    const uint64_t room = (options_.memory_mib << 20) / (3 * partition_bytes);  // two, and a file
    return std::clamp<size_t>(std::min<uint64_t>(wanted, room), 1,
                              std::max<size_t>(group_count, 1));
  }

  // Fills in what is known already; returns what is left to do.
  Result<std::vector<Group>> Prepare(const Manifest* known) {
    ASSIGN_OR_RETURN(const ImportProgressRecords before, ReadImportProgress(store_, id_));
    const std::string purpose = Purpose();
    const bool resumed = before.purpose == purpose;
    if (!resumed) RETURN_IF_ERROR(Restart(known, purpose));
    for (uint32_t i = 0; i < plan_.layers.size(); ++i) {
      Manifest::Layer& layer = manifest_.layers.emplace_back();
      layer.digests.resize(plan_.layers[i].cut.partition_count);
      layer.held = plan_.layers[i].owned;
      if (known == nullptr) continue;
      const std::vector<uint32_t>& held = known->layers[i].held;
      layer.held.insert(layer.held.end(), held.begin(), held.end());
      std::sort(layer.held.begin(), layer.held.end());
      layer.held.erase(std::unique(layer.held.begin(), layer.held.end()), layer.held.end());
    }
    std::vector<Group> todo;
    for (const Group& group : Groups(plan_)) {
      const auto done =
          resumed ? before.groups.find({group.layer_index, group.first}) : before.groups.end();
      if (done != before.groups.end() && done->second.size() == group.end - group.first) {
        Take(group, done->second);
      } else if (known != nullptr && !NeedsPages(group, *known)) {
        const auto& digests = known->layers[group.layer_index].digests;
        Take(group, {digests.begin() + group.first, digests.begin() + group.end});
      } else {
        todo.push_back(group);
      }
    }
    known_ = known;
    return todo;
  }

  // What makes two imports the same work.
  std::string Purpose() const {
    Sha256 hash;
    hash.Update(json::serialize(table::ToJson(manifest_.identity)));
    hash.Update(fmt::format("|{}|{}|{}|", manifest_.base_version, manifest_.map.epoch,
                            fmt::join(manifest_.map.members, ",")));
    for (const LayerPlan& layer : plan_.layers) {
      hash.Update(fmt::format("{}|", fmt::join(layer.owned, ",")));
    }
    hash.Update(source_.Fingerprint());
    return ToHex(hash.Finish());
  }

  // A complete table set stays as it is until its new manifest replaces the old one.
  Status Restart(const Manifest* known, const std::string& purpose) {
    const std::string& model = manifest_.identity.model;
    const std::string& version = manifest_.identity.version;
    // First: whatever comes next, each page has a record that names its version.
    const RecordChange named = ImportNameRecord(model, version);
    RETURN_IF_ERROR(store_.WriteRecords({&named, 1}));
    if (known == nullptr || known == options_.known) {
      RETURN_IF_ERROR(DropTableSet(store_, model, version));
    } else {
      RETURN_IF_ERROR(DropImportProgress(store_, id_));
    }
    const RecordChange begun = ImportPurposeRecord(id_, purpose);
    return store_.WriteProgress({&begun, 1});
  }

  Status OpenBase() {
    const table::TableIdentity& ours = manifest_.identity;
    ASSIGN_OR_RETURN(auto base, FindManifest(store_, ours.model, manifest_.base_version));
    if (!base) {
      return FailedPrecondition(
          fmt::format("version {} of {}, the base of this delta, is not in the store: import it "
                      "first, or import without a base",
                      manifest_.base_version, ours.model));
    }
    table::TableIdentity same = base->identity;
    same.version = ours.version;
    same.content_digest.clear();
    RETURN_IF_ERROR(table::CheckSameIdentity(ours, same, "the base of this delta"));
    if (!Covers(*base, plan_)) {
      return FailedPrecondition(fmt::format(
          "version {} of {}, the base of this delta, was imported for members [{}], not "
          "[{}]: import it again for these first",
          manifest_.base_version, ours.model, fmt::join(base->map.members, ", "),
          fmt::join(manifest_.map.members, ", ")));
    }
    ASSIGN_OR_RETURN(base_, TableReader::Open(store_, std::move(*base)));
    if (base_->base_count() < TableReader::kBasesMax) return OkStatus();
    return FailedPrecondition(
        fmt::format("version {} of {} is the end of a chain of {} deltas, as many as are read: "
                    "import {} as a full version, without a base",
                    manifest_.base_version, ours.model, TableReader::kBasesMax, ours.version));
  }

  bool Holds(uint32_t layer_index, uint32_t partition) const {
    const std::vector<uint32_t>& held = manifest_.layers[layer_index].held;
    return std::binary_search(held.begin(), held.end(), partition);
  }

  // Whether a partition is to be held that `known` does not hold.
  bool IsNew(uint32_t layer_index, uint32_t partition, const Manifest& known) const {
    const std::vector<uint32_t>& held = known.layers[layer_index].held;
    return Holds(layer_index, partition) &&
           !std::binary_search(held.begin(), held.end(), partition);
  }
  // A file takes the place of those whose range it covers: what is held of a group is written
  // whole.
  bool IsRead(uint32_t layer_index, uint32_t partition) const {
    return known_ == nullptr || Holds(layer_index, partition);
  }
  bool NeedsPages(const Group& group, const Manifest& known) const {
    for (uint32_t partition = group.first; partition < group.end; ++partition) {
      if (IsNew(group.layer_index, partition, known)) return true;
    }
    return false;
  }

  void Take(const Group& group, std::vector<Sha256Digest> digests) {
    std::copy(digests.begin(), digests.end(),
              manifest_.layers[group.layer_index].digests.begin() + group.first);
    const table::LayerPartitions& cut = plan_.layers[group.layer_index].cut;
    for (uint32_t partition = group.first; partition < group.end; ++partition) {
      progress_.rows_done += cut.RowCount(partition);
    }
  }

  // ---- Workers.

  // What a worker needs again and again: rows of two partitions, and a page.
  struct Scratch {
    std::array<std::vector<std::byte>, 2> rows;
    std::string page;
  };

  void Work(const std::vector<Group>& todo) {
    Scratch scratch;
    for (size_t at = next_++; at < todo.size(); at = next_++) {
      auto done = MakeGroup(todo[at], scratch);
      const std::lock_guard lock(mutex_);
      if (!error_.ok()) return;
      if (done.ok()) {
        finished_.push_back(std::move(*done));
        if (finished_.size() < options_.ingest_files) continue;
        error_ = Ingest();
      } else {
        error_ = done.status();
      }
      if (!error_.ok()) {
        next_ = todo.size();
        return;
      }
    }
  }

  Result<Done> MakeGroup(const Group& group, Scratch& scratch) {
    Done done;
    done.group = group;
    for (uint32_t partition = group.first; partition < group.end;) {
      if (options_.cancel != nullptr && *options_.cancel)
        return Cancelled("the import was stopped");
      if (!IsRead(group.layer_index, partition)) {
        done.digests.push_back(known_->layers[group.layer_index].digests[partition++]);
        continue;
      }
      const bool two = partition + 1 < group.end && IsRead(group.layer_index, partition + 1);
      const uint32_t end = partition + (two ? 2 : 1);
      RETURN_IF_ERROR(TakePair(partition, end, scratch, done));
      partition = end;
    }
    if (done.file != nullptr) RETURN_IF_ERROR(done.file->Finish());
    return done;
  }

  // One partition, or two: their digests are taken side by side.
  Status TakePair(uint32_t first, uint32_t end, Scratch& scratch, Done& done) {
    const uint32_t layer_index = done.group.layer_index;
    const table::LayerPartitions& cut = plan_.layers[layer_index].cut;
    for (uint32_t partition = first; partition < end; ++partition) {
      std::vector<std::byte>& rows = scratch.rows[partition - first];
      rows.resize(cut.RowCount(partition) * plan_.row_bytes);
      RETURN_IF_ERROR(source_.ReadRows(layer_index, cut.FirstRow(partition),
                                       cut.RowCount(partition), rows.data()));
    }
    if (end - first == 2) {
      for (const Sha256Digest& digest : Sha256OfTwo(scratch.rows[0], scratch.rows[1])) {
        done.digests.push_back(digest);
      }
    } else {
      Sha256 hash;
      hash.Update(scratch.rows[0]);
      done.digests.push_back(hash.Finish());
    }
    for (uint32_t partition = first; partition < end; ++partition) {
      const std::vector<std::byte>& rows = scratch.rows[partition - first];
      RETURN_IF_ERROR(Compare(layer_index, partition, done.digests[partition - done.group.first]));
      uint64_t written = 0;
      if (Holds(layer_index, partition)) {
        ASSIGN_OR_RETURN(written, PutPartition(layer_index, partition, rows, scratch.page, done));
      }
      const std::lock_guard lock(mutex_);
      progress_.rows_done += cut.RowCount(partition);
      progress_.bytes_read += rows.size();
      progress_.bytes_written += written;
      if (!error_.ok()) return error_;  // another worker's
      Tell(false);
    }
    return OkStatus();
  }

  // A folder that was imported before must still hold the same rows.
  Status Compare(uint32_t layer_index, uint32_t partition, const Sha256Digest& digest) const {
    if (known_ == nullptr || known_->layers[layer_index].digests[partition] == digest) {
      return OkStatus();
    }
    return FailedPrecondition(fmt::format(
        "partition {} of layer {} is another one in {} than in version {} of {}, which the store "
        "holds: import it under another version",
        partition, plan_.layers[layer_index].layer_id,
        options_.source.empty() ? "the source" : options_.source, manifest_.identity.version,
        manifest_.identity.model));
  }

  // Returns the bytes of pages put.
  Result<uint64_t> PutPartition(uint32_t layer_index, uint32_t partition,
                                std::span<const std::byte> rows, std::string& scratch, Done& done) {
    const LayerPlan& layer = plan_.layers[layer_index];
    const size_t page_rows_bytes = size_t{layer.cut.rows_per_page} * plan_.row_bytes;
    const uint64_t first_page = partition * layer.PagesPerPartition();
    const uint64_t page_count = (rows.size() + page_rows_bytes - 1) / page_rows_bytes;
    std::string changed;
    if (base_ != nullptr) {
      ASSIGN_OR_RETURN(changed, ChangedPages(layer_index, partition, rows));
      if (changed.empty()) return uint64_t{0};
      done.changed.push_back({ChangedPagesKey(id_, layer_index, partition), changed});
    } else if (!manifest_.base_version.empty()) {
      done.changed.push_back({ChangedPagesKey(id_, layer_index, partition), AllPages(page_count)});
    }
    uint64_t written = 0, pages = 0;
    for (uint64_t i = 0; i < page_count; ++i) {
      if (base_ != nullptr && ((static_cast<uint8_t>(changed[i / 8]) >> (i % 8)) & 1) == 0)
        continue;
      const size_t at = i * page_rows_bytes;
      EncodePage(rows.subspan(at, std::min(page_rows_bytes, rows.size() - at)), plan_.row_bytes,
                 &scratch);
      if (done.file == nullptr) {
        ASSIGN_OR_RETURN(done.file, store_.NewFile(id_));
      }
      RETURN_IF_ERROR(
          done.file->Put(layer_index, first_page + i, std::as_bytes(std::span(scratch))));
      written += scratch.size();
      ++pages;
    }
    if (base_ != nullptr) {
      const std::lock_guard lock(mutex_);
      progress_.pages_changed += pages;
    }
    return written;
  }

  static std::string AllPages(uint64_t page_count) {
    std::string bits((page_count + 7) / 8, '\xff');
    if (page_count % 8 != 0) bits.back() = static_cast<char>((1u << (page_count % 8)) - 1);
    return bits;
  }

  // One bit a page that differs from the base; empty when none does.
  Result<std::string> ChangedPages(uint32_t layer_index, uint32_t partition,
                                   std::span<const std::byte> rows) const {
    std::string bits((base_->PageCount(layer_index, partition) + 7) / 8, '\0');
    const uint64_t rows_per_page = base_->cut(layer_index).rows_per_page;
    bool any = false;
    RETURN_IF_ERROR(base_->ReadPartition(
        layer_index, partition, [&](uint64_t first, std::span<const std::byte> base_rows) {
          const auto ours = rows.subspan(first * plan_.row_bytes, base_rows.size());
          if (std::equal(ours.begin(), ours.end(), base_rows.begin())) return;
          const uint64_t page = first / rows_per_page;
          bits[page / 8] =
              static_cast<char>(static_cast<uint8_t>(bits[page / 8]) | (1u << (page % 8)));
          any = true;
        }));
    return any ? bits : std::string();
  }

  // Pages first, then the record that they are there. mutex_ is held, or no worker runs.
  Status Ingest() {
    std::vector<std::unique_ptr<PageWriter>> files;
    std::vector<RecordChange> records;
    for (Done& done : finished_) {
      if (done.file != nullptr) files.push_back(std::move(done.file));
      std::copy(done.digests.begin(), done.digests.end(),
                manifest_.layers[done.group.layer_index].digests.begin() + done.group.first);
      records.insert(records.end(), done.changed.begin(), done.changed.end());
      records.push_back(
          ImportGroupRecord(id_, done.group.layer_index, done.group.first, done.digests));
    }
    finished_.clear();
    if (!files.empty()) RETURN_IF_ERROR(store_.Ingest(std::move(files)));
    return records.empty() ? OkStatus() : store_.WriteProgress(records);
  }

  void Tell(bool at_once) {
    if (!options_.on_progress) return;
    const TimePoint now = Clock::Real().Now();
    if (!at_once && now < next_told_) return;
    next_told_ = now + kProgressEvery;
    options_.on_progress(progress_);
  }

  const client::TableSource& source_;
  const TablePlan& plan_;
  RowStore& store_;
  const ImportOptions& options_;
  Manifest& manifest_;
  const TableSetId id_;
  const Manifest* known_ = nullptr;
  std::unique_ptr<TableReader> base_;
  std::atomic<size_t> next_ = 0;

  std::mutex mutex_;  // guards what follows, and manifest_.layers[].digests
  std::vector<Done> finished_;
  ImportProgress progress_;
  TimePoint next_told_;
  Status error_;
};

}  // namespace

Result<Manifest> ImportTables(const client::TableSource& source,
                              const table::TableIdentity& identity, const table::ClusterMap& map,
                              const TablePlan& plan, RowStore& store,
                              const ImportOptions& options) {
  Manifest manifest;
  manifest.identity = identity;
  manifest.map = map;
  manifest.base_version = options.base_version;
  manifest.source = options.source;
  ASSIGN_OR_RETURN(const std::optional<Manifest> stored,
                   FindManifest(store, identity.model, identity.version));
  const Manifest* const known = stored ? &*stored : options.known;
  if (known != nullptr) {
    table::TableIdentity same = known->identity;
    same.content_digest.clear();
    RETURN_IF_ERROR(table::CheckSameIdentity(identity, same, "the version in the store"));
  }
  if (stored) manifest.base_version = stored->base_version;
  RETURN_IF_ERROR(Import(source, plan, store, options, manifest).Run(known));
  RETURN_IF_ERROR(source.CheckUnchanged());
  manifest.identity.content_digest = ContentDigest(manifest.layers);
  const TableSetId id = TableSetIdOf(identity.model, identity.version);
  ASSIGN_OR_RETURN(std::vector<RecordChange> records, ImportProgressGone(store, id));
  records.push_back(ImportNameGone(id));
  records.push_back(ManifestRecord(manifest));
  RETURN_IF_ERROR(store.WriteRecords(records));
  return manifest;
}

}  // namespace engram::memnode
