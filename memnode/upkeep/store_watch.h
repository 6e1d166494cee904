// Looks at a store on a thread of its own, so that a node can say how its store is without waiting
// for the disk, and can say so of a disk that does not answer.
//
// Any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "memnode/store/row_store.h"

namespace engram::memnode {

class StoreWatch {
 public:
  static constexpr Nanos kPeriod = std::chrono::seconds(10);
  // Once the last look is as old as this, asking for it begins another.
  static constexpr Nanos kFreshFor = std::chrono::milliseconds(200);

  // `store` outlives it and lies in folder `path`.
  StoreWatch(RowStore& store, std::string path);
  ~StoreWatch();   // waits for the look under way
  Status Start();  // RESOURCE_EXHAUSTED: no thread

  struct Seen {
    bool looked = false;  // false: all else but `waiting` is empty
    std::map<TableSetId, uint64_t> stored_bytes;
    std::optional<uint64_t> free_bytes;  // of the disk; nullopt: the system does not say
    Status readable, writable;
    Nanos age{};      // since this look ended
    Nanos waiting{};  // since the look under way began; 0: none is
  };
  // Never waits for the disk.
  Seen Last();

 private:
  Seen Look();
  void Run();

  RowStore& store_;
  const std::string path_;
  const Clock& clock_ = Clock::Real();
  std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  Seen last_;
  TimePoint ended_;
  std::optional<TimePoint> began_;  // the look under way
  bool wanted_ = true;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace engram::memnode
