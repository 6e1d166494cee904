#include "compute/parallel/mpi_collective.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string_view>
#include <thread>

#include "common/base/check.h"

#ifdef ENGRAM_HAS_MPI
#include <mpi.h>
#endif

namespace engram::parallel {

bool UnderMpi() {
  for (const char* const name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE"}) {
    const char* const value = std::getenv(name);
    if (value != nullptr && std::atoi(value) > 1) return true;
  }
  return false;
}

#ifdef ENGRAM_HAS_MPI
namespace {

// Small broadcasts, as every decode step's, take one message.
constexpr size_t kInlineBytes = 4096 - sizeof(uint64_t);
// While tokens are made the next operation is near; between requests it is not.
constexpr Nanos kYieldFor = std::chrono::microseconds(300);
constexpr Nanos kPause = std::chrono::microseconds(20);
constexpr Nanos kLongPause = std::chrono::milliseconds(1);
constexpr Nanos kLongPauseAfter = std::chrono::milliseconds(20);

class MpiCollective : public Collective {
 public:
  explicit MpiCollective(Nanos time_limit) : time_limit_(time_limit) {
    ::MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    ::MPI_Comm_size(MPI_COMM_WORLD, &size_);
    ::MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  }
  ~MpiCollective() override {
    if (status_.ok()) {
      ::MPI_Finalize();
    } else {
      ::MPI_Abort(MPI_COMM_WORLD, 1);
    }
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  Status status() const override { return status_; }

 private:
  // Through memory of this object's own: an operation that is given up may still write there.
  void Gather(std::span<float> all, std::span<const int64_t> blocks) override {
    if (!status_.ok()) return;
    CHECK_LE(all.size(), static_cast<size_t>(std::numeric_limits<int>::max()));
    counts_.clear();
    firsts_.clear();
    int first = 0;
    for (const int64_t block : blocks) {
      firsts_.push_back(first);
      counts_.push_back(static_cast<int>(block));
      first += counts_.back();
    }
    staging_.resize(all.size_bytes());
    const auto mine = static_cast<size_t>(rank_);
    auto* const floats = reinterpret_cast<float*>(staging_.data());
    std::copy_n(all.data() + firsts_[mine], counts_[mine], floats + firsts_[mine]);
    MPI_Request request = MPI_REQUEST_NULL;
    const int begun = ::MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, floats, counts_.data(),
                                        firsts_.data(), MPI_FLOAT, MPI_COMM_WORLD, &request);
    if (Await(begun, request, Patience::kBusy, "gather")) {
      std::memcpy(all.data(), staging_.data(), all.size_bytes());
    }
  }

  void Spread(std::vector<std::byte>& bytes, Patience patience) override {
    if (!status_.ok()) return;
    uint64_t total = bytes.size();
    if (rank_ == 0) {
      std::memcpy(head_.data(), &total, sizeof(total));
      std::memcpy(head_.data() + sizeof(total), bytes.data(), std::min(total, kInlineBytes));
    }
    if (!BroadcastRaw(head_, patience)) return;
    std::memcpy(&total, head_.data(), sizeof(total));
    if (total > kInlineBytes) {
      CHECK_LE(total, static_cast<uint64_t>(std::numeric_limits<int>::max()));
      staging_.resize(total);
      if (rank_ == 0) std::memcpy(staging_.data(), bytes.data(), total);
      if (!BroadcastRaw(staging_, Patience::kBusy)) return;
    }
    if (rank_ == 0) return;
    const std::byte* const from =
        total > kInlineBytes ? staging_.data() : head_.data() + sizeof(total);
    bytes.assign(from, from + total);
  }

  bool BroadcastRaw(std::span<std::byte> bytes, Patience patience) {
    MPI_Request request = MPI_REQUEST_NULL;
    const int begun = ::MPI_Ibcast(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, 0,
                                   MPI_COMM_WORLD, &request);
    return Await(begun, request, patience, "broadcast");
  }

  bool Await(int code, MPI_Request& request, Patience patience, std::string_view what) {
    const TimePoint start = Clock::Real().Now();
    int done = 0;
    while (code == MPI_SUCCESS) {
      code = ::MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      if (code != MPI_SUCCESS || done != 0) break;
      const Nanos waited = Clock::Real().Now() - start;
      if (patience == Patience::kBusy && waited > time_limit_) {
        status_ = DeadlineExceeded(fmt::format(
            "rank {} of {} waited {} ms for the others to take part in a {}: one of them has "
            "stopped; start all ranks again",
            rank_, size_, std::chrono::duration_cast<std::chrono::milliseconds>(waited).count(),
            what));
        return false;
      }
      if (waited < kYieldFor) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(waited < kLongPauseAfter ? kPause : kLongPause);
      }
    }
    if (code == MPI_SUCCESS) return true;
    std::array<char, MPI_MAX_ERROR_STRING> text = {};
    int length = 0;
    ::MPI_Error_string(code, text.data(), &length);
    status_ = Unavailable(
        fmt::format("rank {} of {}: the {} failed: {}", rank_, size_, what, text.data()));
    return false;
  }

  const Nanos time_limit_;
  int rank_ = 0;
  int size_ = 1;
  std::vector<std::byte> head_ = std::vector<std::byte>(kInlineBytes + sizeof(uint64_t));
  std::vector<std::byte> staging_;
  std::vector<int> counts_, firsts_;
  Status status_;
};

}  // namespace

Result<std::unique_ptr<Collective>> OpenMpi(Nanos time_limit) {
  int provided = 0;
  // One thread at a time calls it: main, then the engine's.
  if (::MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS ||
      provided < MPI_THREAD_SERIALIZED) {
    return FailedPrecondition("MPI does not start, or not for threads that take turns");
  }
  return std::unique_ptr<Collective>(std::make_unique<MpiCollective>(time_limit));
}

void AbortMpi(int exit_code) {
  ::MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

#else

void AbortMpi(int exit_code) { std::_Exit(exit_code); }

Result<std::unique_ptr<Collective>> OpenMpi(Nanos) {
  return FailedPrecondition(
      "mpirun started several ranks, but this program was built without MPI: install "
      "libopenmpi-dev (deploy/install-deps.sh) and build again");
}

#endif

}  // namespace engram::parallel
