// A file that only takes room, which dropping versions gets on a full disk. RocksDB can neither
// open nor write to a store on a disk without room.
//
// Any thread.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>

namespace engram::memnode {

class DiskReserve {
 public:
  // Of the file `path`; 0 bytes: there is to be none, and one that is there is left alone.
  DiskReserve(std::string path, uint64_t bytes) : path_(std::move(path)), bytes_(bytes) {}

  // Takes the room, unless it is taken already. Warns where there is not twice as much: the disk
  // is too full for a reserve, and it is tried again at the next call.
  void Take();
  // Gives the room back to the disk; false when there was none.
  bool Release();

 private:
  const std::string path_;
  const uint64_t bytes_;
  std::mutex mutex_;
  bool warned_ = false;  // guarded by mutex_
};

}  // namespace engram::memnode
