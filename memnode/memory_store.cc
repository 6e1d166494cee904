#include "memnode/memory_store.h"

#include <fmt/format.h>

#include <utility>

namespace engram::memnode {

class MemoryPageWriter : public PageWriter {
 public:
  MemoryPageWriter(MemoryStore* store, TableSetId table_set)
      : store_(store), table_set_(table_set) {}

  Status Put(uint32_t layer_index, uint64_t page, std::span<const std::byte> bytes) override {
    const std::pair key(layer_index, page);
    CHECK(empty_ || last_ < key) << "pages must ascend";
    empty_ = false;
    last_ = key;
    store_->pages_[{table_set_, layer_index, page}] =
        std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return OkStatus();
  }
  Status Finish() override { return OkStatus(); }

 private:
  MemoryStore* const store_;
  const TableSetId table_set_;
  bool empty_ = true;
  std::pair<uint32_t, uint64_t> last_;
};

Status MemoryStore::PutManifest(TableSetId table_set, const std::string& manifest) {
  if (!next_manifest_.ok()) return std::exchange(next_manifest_, OkStatus());
  manifests_[table_set] = manifest;
  return OkStatus();
}

Status MemoryStore::Drop(TableSetId table_set) {
  manifests_.erase(table_set);
  std::erase_if(pages_, [&](const auto& entry) { return std::get<0>(entry.first) == table_set; });
  return OkStatus();
}

Result<std::unique_ptr<PageWriter>> MemoryStore::BeginImport(TableSetId table_set) {
  return std::unique_ptr<PageWriter>(std::make_unique<MemoryPageWriter>(this, table_set));
}

Status MemoryStore::ReadPages(TableSetId table_set, uint32_t layer_index, uint64_t first,
                              uint64_t count, const Visitor& visit) {
  if (!next_read_.ok()) return std::exchange(next_read_, OkStatus());
  for (uint64_t page = first; page < first + count; ++page) {
    const auto it = pages_.find({table_set, layer_index, page});
    if (it == pages_.end()) {
      return DataLoss(fmt::format("page {} of Engram layer index {} is missing from the store",
                                  page, layer_index));
    }
    RETURN_IF_ERROR(visit(page, std::as_bytes(std::span(it->second))));
  }
  return OkStatus();
}

void MemoryStore::CorruptPage(TableSetId table_set, uint32_t layer_index, uint64_t page) {
  std::string& bytes = pages_.at({table_set, layer_index, page});
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x10);
}

void MemoryStore::LosePage(TableSetId table_set, uint32_t layer_index, uint64_t page) {
  CHECK_EQ(pages_.erase({table_set, layer_index, page}), 1u);
}

}  // namespace engram::memnode
