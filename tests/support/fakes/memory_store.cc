#include "tests/support/fakes/memory_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace engram::memnode {

class MemoryPageWriter : public PageWriter {
 public:
  explicit MemoryPageWriter(TableSetId table_set) : table_set_(table_set) {}

  Status Put(uint32_t layer_index, uint64_t page, std::span<const std::byte> bytes) override {
    CHECK(!finished_);
    const MemoryStore::Key key(table_set_, layer_index, page);
    CHECK(pages_.empty() || pages_.rbegin()->first < key) << "pages must ascend";
    pages_[key] = std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return OkStatus();
  }
  Status Finish() override {
    CHECK(!pages_.empty());
    finished_ = true;
    return OkStatus();
  }

  bool finished() const { return finished_; }
  std::map<MemoryStore::Key, std::string>& pages() { return pages_; }

 private:
  const TableSetId table_set_;
  bool finished_ = false;
  std::map<MemoryStore::Key, std::string> pages_;
};

Result<std::map<std::string, std::string>> MemoryStore::ReadRecords(std::string_view prefix) {
  const std::lock_guard lock(mutex_);
  std::map<std::string, std::string> found;
  for (auto it = records_.lower_bound(std::string(prefix));
       it != records_.end() && it->first.starts_with(prefix); ++it) {
    found.insert(*it);
  }
  return found;
}

Status MemoryStore::WriteRecords(std::span<const RecordChange> changes) {
  const std::lock_guard lock(mutex_);
  const bool hit = std::any_of(changes.begin(), changes.end(), [&](const RecordChange& change) {
    return change.key.starts_with(next_record_prefix_);
  });
  if (hit && !next_record_.ok()) return std::exchange(next_record_, OkStatus());
  for (const RecordChange& change : changes) {
    if (change.value) {
      records_[change.key] = *change.value;
    } else {
      records_.erase(change.key);
    }
  }
  return OkStatus();
}

Result<std::unique_ptr<PageWriter>> MemoryStore::NewFile(TableSetId table_set) {
  return std::unique_ptr<PageWriter>(std::make_unique<MemoryPageWriter>(table_set));
}

Status MemoryStore::Ingest(std::vector<std::unique_ptr<PageWriter>> files) {
  const std::lock_guard lock(mutex_);
  if (!next_ingest_.ok()) return std::exchange(next_ingest_, OkStatus());
  for (const auto& file : files) {
    auto* writer = dynamic_cast<MemoryPageWriter*>(file.get());
    CHECK(writer != nullptr && writer->finished());
    for (auto& [key, bytes] : writer->pages()) pages_[key] = std::move(bytes);
  }
  return OkStatus();
}

Status MemoryStore::DropPages(TableSetId table_set) {
  const std::lock_guard lock(mutex_);
  std::erase_if(pages_, [&](const auto& entry) { return std::get<0>(entry.first) == table_set; });
  return OkStatus();
}

Result<std::map<TableSetId, uint64_t>> MemoryStore::AllPageBytes() {
  const std::lock_guard lock(mutex_);
  std::map<TableSetId, uint64_t> bytes;
  for (const auto& [key, page] : pages_) bytes[std::get<0>(key)] += page.size();
  return bytes;
}

Status MemoryStore::FindPage(const Key& key, std::string* bytes) {
  const std::lock_guard lock(mutex_);
  if (!next_read_.ok()) return std::exchange(next_read_, OkStatus());
  const auto it = pages_.find(key);
  if (it == pages_.end()) {
    return DataLoss(fmt::format("page {} of Engram layer index {} is missing from the store",
                                std::get<2>(key), std::get<1>(key)));
  }
  *bytes = it->second;
  return OkStatus();
}

Status MemoryStore::ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first,
                              uint64_t count, const Visitor& visit) {
  std::string bytes;
  for (uint64_t page = first; page < first + count; ++page) {
    RETURN_IF_ERROR(FindPage({table_set, layer_index, page}, &bytes));
    RETURN_IF_ERROR(visit(page, std::as_bytes(std::span(bytes))));
  }
  return OkStatus();
}

Status MemoryStore::ReadPage(TableSetId table_set, uint32_t layer_index, uint64_t page,
                             std::string* bytes) {
  return FindPage({table_set, layer_index, page}, bytes);
}

void MemoryStore::CorruptPage(TableSetId table_set, uint32_t layer_index, uint64_t page) {
  const std::lock_guard lock(mutex_);
  std::string& bytes = pages_.at({table_set, layer_index, page});
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x10);
}

void MemoryStore::LosePage(TableSetId table_set, uint32_t layer_index, uint64_t page) {
  const std::lock_guard lock(mutex_);
  CHECK_EQ(pages_.erase({table_set, layer_index, page}), 1u);
}

void MemoryStore::FailNextRead(Status status) {
  const std::lock_guard lock(mutex_);
  next_read_ = std::move(status);
}

void MemoryStore::FailNextIngest(Status status) {
  const std::lock_guard lock(mutex_);
  next_ingest_ = std::move(status);
}

void MemoryStore::FailNextRecord(std::string prefix, Status status) {
  const std::lock_guard lock(mutex_);
  next_record_prefix_ = std::move(prefix);
  next_record_ = std::move(status);
}

size_t MemoryStore::page_count() const {
  const std::lock_guard lock(mutex_);
  return pages_.size();
}

}  // namespace engram::memnode
