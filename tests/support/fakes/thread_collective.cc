#include "tests/support/fakes/thread_collective.h"

#include <fmt/format.h>

#include <cstring>

#include "common/base/check.h"

namespace engram::parallel {

class ThreadGroup::Rank : public Collective {
 public:
  Rank(ThreadGroup& group, int rank) : group_(group), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return group_.size_; }

  Status status() const override {
    const std::lock_guard lock(group_.mutex_);
    return group_.status_;
  }

 private:
  void Gather(std::span<float> all, std::span<const int64_t> blocks) override {
    CHECK_EQ(blocks.size(), static_cast<size_t>(size()));
    group_.Meet(rank_, {all.data(), all.size_bytes()}, Patience::kBusy, [&](const auto& parts) {
      int64_t first = 0;
      for (int r = 0; r < size(); ++r) {
        const Part& part = parts[static_cast<size_t>(r)];
        const int64_t count = blocks[static_cast<size_t>(r)];
        CHECK_EQ(part.bytes, all.size_bytes()) << "rank " << r << " gathers something else";
        if (r != rank_) {
          std::memcpy(all.data() + first, static_cast<const float*>(part.data) + first,
                      static_cast<size_t>(count) * sizeof(float));
        }
        first += count;
      }
      CHECK_EQ(first, static_cast<int64_t>(all.size()));
    });
  }

  void Spread(std::vector<std::byte>& bytes, Patience patience) override {
    group_.Meet(rank_, {bytes.data(), bytes.size()}, patience, [&](const auto& parts) {
      if (rank_ == 0) return;
      const auto* const from = static_cast<const std::byte*>(parts[0].data);
      bytes.assign(from, from + parts[0].bytes);
    });
  }

  ThreadGroup& group_;
  const int rank_;
};

ThreadGroup::ThreadGroup(int size, Nanos time_limit)
    : size_(size), time_limit_(time_limit), parts_(static_cast<size_t>(size)) {
  for (int r = 0; r < size; ++r) ranks_.push_back(std::make_unique<Rank>(*this, r));
}

ThreadGroup::~ThreadGroup() = default;

void ThreadGroup::Kill(int rank) {
  const std::lock_guard lock(mutex_);
  if (status_.ok()) status_ = Unavailable(fmt::format("rank {} of {} is gone", rank, size_));
  changed_.notify_all();
}

// The last one to arrive begins the next round.
bool ThreadGroup::Await(std::unique_lock<std::mutex>& lock, int rank, Patience patience) {
  if (!status_.ok()) return false;
  const uint64_t round = round_;
  if (++arrived_ == size_) {
    arrived_ = 0;
    ++round_;
    changed_.notify_all();
    return true;
  }
  const auto over = [&] { return round_ != round || !status_.ok(); };
  if (patience == Patience::kIdle) {
    changed_.wait(lock, over);
  } else if (!changed_.wait_for(lock, time_limit_, over)) {
    status_ = DeadlineExceeded(
        fmt::format("rank {} of {} waited {} ms for the others", rank, size_,
                    std::chrono::duration_cast<std::chrono::milliseconds>(time_limit_).count()));
    changed_.notify_all();
  }
  return round_ != round;
}

template <typename Take>
bool ThreadGroup::Meet(int rank, Part part, Patience patience, const Take& take) {
  std::unique_lock lock(mutex_);
  parts_[static_cast<size_t>(rank)] = part;
  if (!Await(lock, rank, patience)) return false;
  take(parts_);
  // No rank's data goes before every rank has it.
  return Await(lock, rank, Patience::kBusy);
}

}  // namespace engram::parallel
