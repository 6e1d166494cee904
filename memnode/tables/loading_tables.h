// Tables that are served while their rows are loaded into an arena, which has room for all. Rows
// that are not there yet are read from the store. Once all are, lookups go to the arena alone, and
// it is shared with clients of this host.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <thread>

#include "common/base/status.h"
#include "memnode/tables/arena.h"
#include "memnode/tables/cold_tables.h"

namespace engram::memnode {

class LoadingTables final : public ColdTables {
 public:
  // Returns at once. parts.origin is `rows`.
  static Result<std::shared_ptr<ServedTables>> Start(TableParts parts, const StoredRows& rows,
                                                     Arena arena, const ColdOptions& options,
                                                     int threads, obs::Metrics& metrics);
  ~LoadingTables() override;

  std::shared_lock<std::shared_mutex> Use() const override {
    return complete() ? std::shared_lock<std::shared_mutex>() : ColdTables::Use();
  }
  Status Find(uint32_t layer_index, std::span<const uint64_t> rows,
              std::span<const std::byte*> addresses) const override {
    return complete() ? arena_.Find(layer_index, rows, addresses)
                      : ColdTables::Find(layer_index, rows, addresses);
  }
  ColdReader* cold() const override { return complete() ? nullptr : ColdTables::cold(); }
  std::span<const std::byte> memory() const override {
    return complete() ? arena_.bytes() : std::span<const std::byte>();
  }
  net::FdServer* local() const override { return complete() ? local_.get() : nullptr; }
  uint64_t memory_bytes() const override { return arena_.size_bytes(); }

 private:
  using ColdTables::ColdTables;
  void Load(int threads);

  Arena arena_;
  std::unique_ptr<net::FdServer> local_;
  std::atomic<bool> stop_ = false;
  std::thread loader_;
};

}  // namespace engram::memnode
