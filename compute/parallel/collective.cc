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
  exchange_.bytes += static_cast<int64_t>(all.size_bytes());
}

void Collective::Broadcast(std::vector<std::byte>& bytes, Patience patience) {
  if (size() == 1) return;
  const TimePoint start = Clock::Real().Now();
  Spread(bytes, patience);
  if (patience == Patience::kBusy) exchange_.time += Clock::Real().Now() - start;
  exchange_.bytes += static_cast<int64_t>(bytes.size());
}

Collective& Solo() {
  static SoloCollective solo;
  return solo;
}

std::vector<float> GatherColumns(Collective& ranks, std::vector<float> mine, int64_t rows,
                                 int64_t columns, int64_t unit) {
  if (static_cast<int64_t>(mine.size()) == rows * columns) return mine;
  const auto columns_of = [&](int rank) { return SliceOf(columns, rank, ranks.size(), unit); };
  const Slice own = columns_of(ranks.rank());
  CHECK_EQ(static_cast<int64_t>(mine.size()), rows * own.count);
  std::vector<int64_t> blocks;
  for (int r = 0; r < ranks.size(); ++r) blocks.push_back(rows * columns_of(r).count);
  std::vector<float> gathered(static_cast<size_t>(rows * columns));
  std::copy(mine.begin(), mine.end(), gathered.begin() + rows * own.first);
  ranks.AllGather(gathered, blocks);
  if (rows == 1) return gathered;
  std::vector<float> all(gathered.size());
  const float* from = gathered.data();
  for (int r = 0; r < ranks.size(); ++r) {
    const Slice slice = columns_of(r);
    for (int64_t row = 0; row < rows; ++row, from += slice.count) {
      std::copy_n(from, slice.count, all.data() + row * columns + slice.first);
    }
  }
  return all;
}

}  // namespace engram::parallel
