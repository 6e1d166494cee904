#include "memnode/upkeep/repair.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "common/base/clock.h"
#include "common/base/sha256.h"
#include "common/checkpoint/model_tables.h"
#include "memnode/store/page.h"

namespace engram::memnode {
namespace {

constexpr Nanos kLookEvery = std::chrono::milliseconds(5);

using ReaderList = std::vector<std::unique_ptr<TableReader>>;

TableSetId IdOf(const Manifest& manifest) {
  return TableSetIdOf(manifest.identity.model, manifest.identity.version);
}

std::string NameOf(const Manifest& manifest, uint32_t layer_index, uint32_t partition) {
  return fmt::format("partition {} of layer {} of {} version {}", partition,
                     manifest.identity.layers[layer_index].layer_id, manifest.identity.model,
                     manifest.identity.version);
}

// The table set and what it is a delta on, the base of all first.
Result<ReaderList> OpenChain(RowStore& store, const std::string& model, std::string version) {
  ReaderList chain;
  while (!version.empty()) {
    ASSIGN_OR_RETURN(auto manifest, FindManifest(store, model, version));
    if (!manifest) {
      return NotFound(fmt::format("the store has no {} version {}", model, version));
    }
    version = manifest->base_version;
    ASSIGN_OR_RETURN(auto reader, TableReader::Open(store, std::move(*manifest)));
    chain.insert(chain.begin(), std::move(reader));
  }
  return chain;
}

// Every complete version of the model: any of them may be in memory and share a page.
ReaderList OpenVersions(RowStore& store, const std::string& model) {
  ReaderList versions;
  auto manifests = AllManifests(store);
  if (!manifests.ok()) return versions;  // OpenChain reports the chain's own errors
  for (Manifest& manifest : *manifests) {
    if (manifest.identity.model != model) continue;
    auto reader = TableReader::Open(store, std::move(manifest));
    if (reader.ok()) versions.push_back(std::move(*reader));
  }
  return versions;
}

}  // namespace

Result<std::unique_ptr<client::TableSource>> OpenRecordedSource(const Manifest& manifest) {
  if (manifest.source.empty()) {
    return FailedPrecondition("the table set was imported without a folder on record");
  }
  const table::TableIdentity& identity = manifest.identity;
  ASSIGN_OR_RETURN(const client::ModelTables model,
                   client::LoadModelTables(manifest.source, identity.model, identity.version));
  RETURN_IF_ERROR(CheckSameIdentity(identity, model.identity, manifest.source));
  return client::OpenTableSource(manifest.source, model);
}

std::string RepairReport::ToText() const {
  if (files.empty()) return "nothing was damaged";
  std::string text;
  for (const RepairedFile& file : files) {
    text += fmt::format(
        "{}rewrote {} pages of version {} layer {} partitions {}..{}: {} from memory, {} "
        "from the source, the others were sound",
        text.empty() ? "" : "; ", file.pages, file.version, file.layer_id, file.partitions.front(),
        file.partitions.back(), file.pages_from_memory, file.pages_from_source);
  }
  return text;
}

// Rebuilds the file of one table set that a partition lies in.
class Repairer::Rebuild {
 public:
  Rebuild(Repairer& repairer, const TableReader& reader, const ReaderList& versions,
          uint32_t layer_index)
      : repairer_(repairer),
        reader_(reader),
        manifest_(reader.manifest()),
        id_(IdOf(manifest_)),
        versions_(versions),
        layer_index_(layer_index) {}

  // A file without pages where the table set has none of its own there.
  Result<RepairedFile> Run(uint32_t partition);

 private:
  enum class Copy { kMemory, kSource };

  Status Assemble(uint32_t partition);
  std::vector<bool> ReadSound(uint32_t partition);
  bool Matches(uint32_t partition) const;
  // Fills the pages that are not `sound`.
  Status Fill(uint32_t partition, const std::vector<bool>& sound, Copy copy);
  Status FillRun(uint64_t first_page, uint64_t count, std::byte* out, Copy copy);
  bool FromMemory(uint64_t page, std::byte* out) const;
  Status Write(uint32_t partition, PageWriter& writer);
  Status Ingest(std::unique_ptr<PageWriter> writer);
  bool OwnsAnyOf(uint32_t partition) const;
  bool Owns(uint64_t page) const { return reader_.HolderOf(layer_index_, page) == id_; }
  std::span<std::byte> RowsOf(uint32_t partition, uint64_t page);

  Repairer& repairer_;
  const TableReader& reader_;
  const Manifest& manifest_;
  const TableSetId id_;
  const ReaderList& versions_;
  const uint32_t layer_index_;
  std::optional<Result<std::unique_ptr<client::TableSource>>> source_;  // opened when needed
  std::vector<std::byte> rows_;                                         // of one partition
  RepairedFile file_;
};

bool Repairer::Rebuild::OwnsAnyOf(uint32_t partition) const {
  const uint64_t first = reader_.FirstPage(layer_index_, partition);
  for (uint64_t i = 0; i < reader_.PageCount(layer_index_, partition); ++i) {
    if (Owns(first + i)) return true;
  }
  return false;
}

std::span<std::byte> Repairer::Rebuild::RowsOf(uint32_t partition, uint64_t page) {
  const table::LayerPartitions& cut = reader_.cut(layer_index_);
  const uint64_t first = reader_.FirstRowOfPage(layer_index_, page) - cut.FirstRow(partition);
  return std::span(rows_).subspan(first * reader_.row_bytes(),
                                  reader_.RowCountOfPage(layer_index_, page) * reader_.row_bytes());
}

// Which pages are sound in the store; their rows are put in place.
std::vector<bool> Repairer::Rebuild::ReadSound(uint32_t partition) {
  std::vector<bool> sound(reader_.PageCount(layer_index_, partition));
  const uint64_t first = reader_.FirstPage(layer_index_, partition);
  std::string scratch;
  for (uint64_t i = 0; i < sound.size(); ++i) {
    const auto read = reader_.ReadPage(layer_index_, first + i, &scratch);
    sound[i] = read.ok();
    if (read.ok()) {
      std::copy(read->begin(), read->end(), RowsOf(partition, first + i).begin());
    }
  }
  return sound;
}

bool Repairer::Rebuild::Matches(uint32_t partition) const {
  Sha256 hash;
  hash.Update(rows_);
  return hash.Finish() == manifest_.layers[layer_index_].digests[partition];
}

// The copy in memory of any version that reads this page from the same place.
bool Repairer::Rebuild::FromMemory(uint64_t page, std::byte* out) const {
  const TableSetId holder = reader_.HolderOf(layer_index_, page);
  const uint64_t first = reader_.FirstRowOfPage(layer_index_, page);
  const uint64_t count = reader_.RowCountOfPage(layer_index_, page);
  return std::any_of(versions_.begin(), versions_.end(), [&](const auto& version) {
    return version->HolderOf(layer_index_, page) == holder &&
           repairer_.copies_.CopyRows(IdOf(version->manifest()), layer_index_, first, count, out);
  });
}

Status Repairer::Rebuild::FillRun(uint64_t first_page, uint64_t count, std::byte* out, Copy copy) {
  const uint64_t first = reader_.FirstRowOfPage(layer_index_, first_page);
  if (copy == Copy::kMemory) {
    for (uint64_t page = first_page; page < first_page + count; ++page) {
      const uint64_t offset = reader_.FirstRowOfPage(layer_index_, page) - first;
      if (!FromMemory(page, out + offset * reader_.row_bytes())) {
        return NotFound("its rows are not in memory");
      }
    }
    return OkStatus();
  }
  if (!source_) source_ = repairer_.open_source_(manifest_);
  if (!source_->ok()) return source_->status();
  const uint64_t end = std::min(reader_.FirstRowOfPage(layer_index_, first_page + count),
                                reader_.cut(layer_index_).total_rows);
  return (**source_)->ReadRows(layer_index_, first, end - first, out);
}

Status Repairer::Rebuild::Fill(uint32_t partition, const std::vector<bool>& sound, Copy copy) {
  const uint64_t first = reader_.FirstPage(layer_index_, partition);
  for (size_t i = 0; i < sound.size();) {
    if (sound[i]) {
      ++i;
      continue;
    }
    const size_t begin = i;
    while (i < sound.size() && !sound[i]) ++i;
    std::byte* out = RowsOf(partition, first + begin).data();
    RETURN_IF_ERROR(FillRun(first + begin, i - begin, out, copy));
  }
  return OkStatus();
}

// Puts the partition's rows into rows_, matching its SHA-256.
Status Repairer::Rebuild::Assemble(uint32_t partition) {
  rows_.resize(reader_.cut(layer_index_).RowCount(partition) * reader_.row_bytes());
  const std::vector<bool> sound = ReadSound(partition);
  const auto bad = static_cast<uint64_t>(std::count(sound.begin(), sound.end(), false));
  if (bad == 0 && Matches(partition)) return OkStatus();
  const std::vector<bool> none(sound.size(), false);
  std::string reasons;
  for (const Copy copy : {Copy::kMemory, Copy::kSource}) {
    if (copy == Copy::kSource) ReadSound(partition);  // undoes what memory filled in
    uint64_t& pages = copy == Copy::kMemory ? file_.pages_from_memory : file_.pages_from_source;
    Status filled = OkStatus();
    // First what is damaged only; then everything, in case a page is sound but another's.
    for (const std::vector<bool>& keep : {sound, none}) {
      filled = Fill(partition, keep, copy);
      if (!filled.ok()) break;
      if (Matches(partition)) {
        pages += static_cast<uint64_t>(std::count(keep.begin(), keep.end(), false));
        return OkStatus();
      }
    }
    if (filled.ok()) filled = DataLoss("its rows do not match the SHA-256");
    reasons += fmt::format("; {}: {}",
                           copy == Copy::kMemory ? std::string("memory")
                                                 : fmt::format("source '{}'", manifest_.source),
                           filled.message());
  }
  return DataLoss(fmt::format("{} is damaged in {} of {} pages and cannot be repaired{}",
                              NameOf(manifest_, layer_index_, partition), bad, sound.size(),
                              reasons));
}

Status Repairer::Rebuild::Write(uint32_t partition, PageWriter& writer) {
  const uint64_t first = reader_.FirstPage(layer_index_, partition);
  std::string page;
  for (uint64_t i = 0; i < reader_.PageCount(layer_index_, partition); ++i) {
    if (!Owns(first + i)) continue;
    EncodePage(RowsOf(partition, first + i), reader_.row_bytes(), &page);
    RETURN_IF_ERROR(writer.Put(layer_index_, first + i, std::as_bytes(std::span(page))));
    ++file_.pages;
  }
  file_.partitions.push_back(partition);
  return OkStatus();
}

// Not into a table set that was dropped meanwhile.
Status Repairer::Rebuild::Ingest(std::unique_ptr<PageWriter> writer) {
  RETURN_IF_ERROR(writer->Finish());
  const table::TableIdentity& identity = manifest_.identity;
  ASSIGN_OR_RETURN(const auto manifest,
                   FindManifest(repairer_.store_, identity.model, identity.version));
  if (!manifest || manifest->identity.content_digest != identity.content_digest) {
    return NotFound(fmt::format("{} version {} was dropped", identity.model, identity.version));
  }
  std::vector<std::unique_ptr<PageWriter>> files;
  files.push_back(std::move(writer));
  return repairer_.store_.Ingest(std::move(files));
}

Result<RepairedFile> Repairer::Rebuild::Run(uint32_t partition) {
  const table::LayerPartitions& cut = reader_.cut(layer_index_);
  const uint32_t per_file = PartitionsPerFile(cut, reader_.row_bytes());
  const uint32_t file_index = partition / per_file;
  file_.table_set = id_;
  file_.version = manifest_.identity.version;
  file_.layer_index = layer_index_;
  file_.layer_id = manifest_.identity.layers[layer_index_].layer_id;
  std::unique_ptr<PageWriter> writer;
  for (const uint32_t held : manifest_.layers[layer_index_].held) {
    if (held / per_file != file_index || !OwnsAnyOf(held)) continue;
    RETURN_IF_ERROR(Assemble(held));
    if (writer == nullptr) {
      ASSIGN_OR_RETURN(writer, repairer_.store_.NewFile(id_));
    }
    RETURN_IF_ERROR(Write(held, *writer));
  }
  if (writer == nullptr) return file_;
  RETURN_IF_ERROR(Ingest(std::move(writer)));
  for (const uint32_t written : file_.partitions) {
    const Status read = reader_.ReadPartition(layer_index_, written, [](uint64_t, auto) {});
    if (!read.ok()) return read.WithContext("damaged again right after it was repaired");
  }
  return file_;
}

Result<RepairReport> Repairer::Repair(const std::string& model, const std::string& version,
                                      uint32_t layer_index, uint32_t partition,
                                      const std::atomic<bool>* given_up) {
  std::unique_lock lock(mutex_, std::defer_lock);
  while (!lock.try_lock()) {
    std::this_thread::sleep_for(kLookEvery);
    if (given_up != nullptr && given_up->load())
      return Cancelled("the repair is not wanted any more");
  }
  ASSIGN_OR_RETURN(const ReaderList chain, OpenChain(store_, model, version));
  const TableReader& top = *chain.back();
  if (layer_index >= top.manifest().layers.size() ||
      partition >= top.cut(layer_index).partition_count) {
    return OutOfRange(fmt::format("{} version {} has no partition {} of layer index {}", model,
                                  version, partition, layer_index));
  }
  const ReaderList versions = OpenVersions(store_, model);
  const auto sound = [&](const TableReader& reader) {
    return reader.ReadPartition(layer_index, partition, [](uint64_t, auto) {});
  };
  RepairReport report;
  Status result = sound(top);
  // The base first: what reads from it is whole with it. A base that cannot be repaired matters
  // only where its damaged pages are still read.
  for (size_t i = 0; i < chain.size() && !result.ok(); ++i) {
    if (sound(*chain[i]).ok()) continue;
    auto file = Rebuild(*this, *chain[i], versions, layer_index).Run(partition);
    result = file.status();
    if (!file.ok()) continue;
    if (file->pages > 0) report.files.push_back(std::move(*file));
    result = sound(top);
  }
  if (!result.ok()) return result;
  return report;
}

}  // namespace engram::memnode
