#include "memnode/ctl/hotset/ngram_counter.h"

#include <algorithm>
#include <array>
#include <utility>

#include "common/base/check.h"
#include "common/base/rng.h"

namespace engram::ctl {
namespace {

constexpr uint64_t kFullPercent = 70;  // of the slots
// Positions whose slot is asked of memory ahead: counting is bound by its latency.
constexpr size_t kAhead = 8;

}  // namespace

uint64_t NgramCounter::BytesFor(size_t tokens, uint64_t slots) {
  const uint64_t slot_bytes = sizeof(uint64_t) + tokens * sizeof(uint32_t);
  return slots * slot_bytes + slots * kFullPercent / 100 * sizeof(Ranked);
}

Result<NgramCounter> NgramCounter::Create(size_t tokens, uint64_t slots) {
  CHECK(slots >= kSlotsMin && tokens >= 2) << slots << " slots for " << tokens << " tokens";
  ASSIGN_OR_RETURN(AlignedBuffer counts,
                   AlignedBuffer::Allocate(slots * sizeof(uint64_t), PageBacking::kTransparent));
  ASSIGN_OR_RETURN(AlignedBuffer ids, AlignedBuffer::Allocate(slots * tokens * sizeof(uint32_t),
                                                              PageBacking::kTransparent));
  return NgramCounter(tokens, slots, std::move(counts), std::move(ids));
}

NgramCounter::NgramCounter(size_t tokens, uint64_t slots, AlignedBuffer counts, AlignedBuffer ids)
    : tokens_(tokens), slots_(slots), counts_(std::move(counts)), ids_(std::move(ids)) {}

uint64_t NgramCounter::HomeOf(const uint32_t* ngram) const {
  uint64_t hash = tokens_;
  for (size_t i = 0; i < tokens_; ++i) hash = Mix64(hash ^ ngram[i]);
  return static_cast<uint64_t>((static_cast<unsigned __int128>(hash) * slots_) >> 64);
}

// The slot of the n-gram, or the empty one where it belongs.
uint64_t NgramCounter::Probe(const uint32_t* ngram, uint64_t home) const {
  uint64_t slot = home;
  while (counts()[slot] != 0 && !std::equal(ngram, ngram + tokens_, ids() + slot * tokens_)) {
    slot = slot + 1 == slots_ ? 0 : slot + 1;
  }
  return slot;
}

void NgramCounter::Add(const uint32_t* ngram, uint64_t home) {
  uint64_t slot = Probe(ngram, home);
  if (counts()[slot] == 0) {
    if (distinct_ * 100 >= slots_ * kFullPercent) {
      DropRarest();
      slot = Probe(ngram, home);
    }
    std::copy(ngram, ngram + tokens_, ids() + slot * tokens_);
    ++distinct_;
  }
  ++counts()[slot];
  ++positions_;
}

void NgramCounter::AddRun(std::span<const uint32_t> run) {
  if (run.size() < tokens_) return;
  const size_t count = run.size() - tokens_ + 1;
  std::array<uint64_t, kAhead> homes;
  const auto look_ahead = [&](size_t i) {
    const uint64_t home = HomeOf(run.data() + i);
    __builtin_prefetch(counts() + home, 1);
    __builtin_prefetch(ids() + home * tokens_, 1);
    homes[i % kAhead] = home;
  };
  for (size_t i = 0; i < std::min(kAhead, count); ++i) look_ahead(i);
  for (size_t i = 0; i < count; ++i) {
    Add(run.data() + i, homes[i % kAhead]);
    if (i + kAhead < count) look_ahead(i + kAhead);
  }
}

uint64_t NgramCounter::CountOf(std::span<const uint32_t> ngram) const {
  CHECK_EQ(ngram.size(), tokens_);
  return counts()[Probe(ngram.data(), HomeOf(ngram.data()))];
}

void NgramCounter::DropRarest() {
  const uint64_t before = distinct_;
  uint64_t dropped_up_to = 0;
  while (before - distinct_ < before / 4) {
    dropped_up_to += std::max<uint64_t>(1, dropped_up_to / 4);
    DropUpTo(dropped_up_to);
  }
  // One that was dropped had been counted `dropped_up_to` times at most since it last came in, and
  // before that missed `count_error_` at most.
  count_error_ += dropped_up_to;
}

void NgramCounter::DropUpTo(uint64_t count) {
  for (uint64_t slot = 0; slot < slots_;) {
    if (counts()[slot] == 0 || counts()[slot] > count) {
      ++slot;
    } else {
      Erase(slot);  // another may have moved here
    }
  }
}

// Moves back those behind that would no longer be found.
void NgramCounter::Erase(uint64_t slot) {
  --distinct_;
  uint64_t hole = slot;
  for (uint64_t next = hole;;) {
    next = next + 1 == slots_ ? 0 : next + 1;
    if (counts()[next] == 0) break;
    const uint64_t home = HomeOf(ids() + next * tokens_);
    const auto distance = [&](uint64_t from) {
      return next >= from ? next - from : next + slots_ - from;
    };
    if (distance(home) < distance(hole)) continue;
    counts()[hole] = counts()[next];
    std::copy_n(ids() + next * tokens_, tokens_, ids() + hole * tokens_);
    hole = next;
  }
  counts()[hole] = 0;
}

std::vector<NgramCounter::Ranked> NgramCounter::Rank() const {
  std::vector<Ranked> ranked;
  ranked.reserve(distinct_);
  for (uint64_t slot = 0; slot < slots_; ++slot) {
    if (counts()[slot] != 0) ranked.push_back({counts()[slot], slot});
  }
  std::sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    return a.count != b.count ? a.count > b.count : a.slot < b.slot;
  });
  return ranked;
}

}  // namespace engram::ctl
