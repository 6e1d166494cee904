#include "memnode/upkeep/store_watch.h"

#include <sys/statvfs.h>

#include <utility>

#include "common/base/threads.h"

namespace engram::memnode {

StoreWatch::StoreWatch(RowStore& store, std::string path) : store_(store), path_(std::move(path)) {}

StoreWatch::~StoreWatch() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status StoreWatch::Start() {
  ASSIGN_OR_RETURN(thread_, StartThread("store watch", [this] { Run(); }));
  return OkStatus();
}

StoreWatch::Seen StoreWatch::Last() {
  const std::lock_guard lock(mutex_);
  const TimePoint now = clock_.Now();
  Seen seen = last_;
  if (seen.looked) seen.age = now - ended_;
  if (began_) seen.waiting = now - *began_;
  if (!began_ && seen.age >= kFreshFor) {
    wanted_ = true;
    wake_.notify_all();
  }
  return seen;
}

StoreWatch::Seen StoreWatch::Look() {
  Seen seen;
  seen.looked = true;
  auto stored = store_.AllPageBytes();
  seen.readable = stored.status();
  if (stored.ok()) seen.stored_bytes = *std::move(stored);
  seen.writable = store_.CheckWritable();
  struct statvfs room = {};
  if (::statvfs(path_.c_str(), &room) == 0) seen.free_bytes = room.f_bavail * room.f_frsize;
  return seen;
}

void StoreWatch::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait_for(lock, kPeriod, [&] { return stop_ || wanted_; });
    if (stop_) return;
    began_ = clock_.Now();
    lock.unlock();
    Seen seen = Look();
    lock.lock();
    last_ = std::move(seen);
    ended_ = clock_.Now();
    began_.reset();
    wanted_ = false;
  }
}

}  // namespace engram::memnode
