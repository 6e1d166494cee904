#include "compute/parallel/collective.h"

#include "common/base/check.h"

namespace engram::parallel {
namespace {

class SoloCollective : public Collective {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  Status status() const override { return OkStatus(); }

 private:
  void Gather(std::span<float>, std::span<const int64_t>) override {}
  void Spread(std::vector<std::byte>&, Patience) override {}
};

}  // namespace

void Collective::AllGather(std::span<float> all, std::span<const int64_t> blocks) {
  if (size() == 1) return;
  const TimePoint start = Clock::Real().Now();
  Gather(all, blocks);
  exchange_.time += Clock::Real().Now() - start;
  exchange_.bytes += all.size_bytes();
}

void Collective::Broadcast(std::vector<std::byte>& bytes, Patience patience) {
  if (size() == 1) return;
  const TimePoint start = Clock::Real().Now();
  Spread(bytes, patience);
  if (patience == Patience::kBusy) exchange_.time += Clock::Real().Now() - start;
  exchange_.bytes += bytes.size();
}

Collective& Solo() {
  static SoloCollective solo;
  return solo;
}

void GatherColumns(Collective& ranks, kernels::Workspace& memory, std::span<const float> mine,
                   int64_t rows, int64_t unit, std::span<float> all) {
  const int64_t columns = std::ssize(all) / rows;
  const auto columns_of = [&](int rank) { return SliceOf(columns, rank, ranks.size(), unit); };
  const Slice own = columns_of(ranks.rank());
  CHECK_EQ(std::ssize(mine), rows * own.count);
  const kernels::Workspace::Scope scope(memory);
  const std::span<int64_t> blocks = memory.Take<int64_t>(ranks.size());
  for (int r = 0; r < ranks.size(); ++r) blocks[r] = rows * columns_of(r).count;
  const std::span<float> gathered = rows == 1 ? all : memory.Take<float>(rows * columns);
  std::copy(mine.begin(), mine.end(), gathered.begin() + rows * own.first);
  ranks.AllGather(gathered, blocks);
  if (rows == 1) return;
  const float* from = gathered.data();
  for (int r = 0; r < ranks.size(); ++r) {
    const Slice slice = columns_of(r);
    for (int64_t row = 0; row < rows; ++row, from += slice.count) {
      std::copy_n(from, slice.count, all.data() + row * columns + slice.first);
    }
  }
}

}  // namespace engram::parallel
