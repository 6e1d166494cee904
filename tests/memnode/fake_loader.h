// Loads versions as tables of which nothing is read.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "memnode/node/version_manager.h"
#include "tests/support/fakes/memory_store.h"

namespace engram::memnode {

class FakeLoader : public TableLoader {
 public:
  Result<TablesPtr> Load(const Manifest& manifest, const std::atomic<bool>*) override {
    if (before) RETURN_IF_ERROR(before(manifest));
    auto owner = std::make_shared<int>();
    const auto* const address = reinterpret_cast<const ServedTables*>(owner.get());
    return TablesPtr(std::move(owner), address);
  }

  std::function<Status(const Manifest&)> before;  // may fail or wait; may be null
};

// A repairer that nothing asks to repair.
class IdleRepairer {
 public:
  Repairer& operator*() { return repairer_; }

 private:
  MemoryStore store_;
  LoadedTables none_;
  Repairer repairer_{store_, none_};
};

}  // namespace engram::memnode
