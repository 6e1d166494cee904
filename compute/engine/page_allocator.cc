#include "compute/engine/page_allocator.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/base/rng.h"

namespace engram::compute {

PageAllocator::PageAllocator(int64_t pages, int64_t page_positions)
    : page_positions_(page_positions), pages_(static_cast<size_t>(pages)) {
  CHECK(pages > 0 && page_positions > 0);
  for (int32_t page = 0; page < static_cast<int32_t>(pages); ++page) {
    pages_[static_cast<size_t>(page)].free_place = free_.insert(free_.end(), page);
  }
}

uint64_t PageAllocator::Hash(Chain before, std::span<const int32_t> tokens) const {
  uint64_t hash = Mix64(before);
  for (const int32_t token : tokens) hash = Mix64(hash, static_cast<uint64_t>(token));
  return hash;
}

std::optional<int32_t> PageAllocator::Find(Chain before, std::span<const int32_t> tokens) const {
  const auto found = by_hash_.find(Hash(before, tokens));
  if (found == by_hash_.end()) return std::nullopt;
  const Page& page = pages_[static_cast<size_t>(found->second)];
  const bool same = page.before == before && std::equal(page.tokens.begin(), page.tokens.end(),
                                                        tokens.begin(), tokens.end());
  return same ? std::optional(found->second) : std::nullopt;
}

void PageAllocator::Hold(int32_t index) {
  Page& page = pages_[static_cast<size_t>(index)];
  if (page.holds++ > 0) return;
  free_.erase(page.free_place);
  if (page.chain != kRoot) --cached_;
}

void PageAllocator::Forget(Page& page) {
  if (page.chain == kRoot) return;
  by_hash_.erase(page.hash);
  page.chain = kRoot;
  page.tokens.clear();
}

std::vector<int32_t> PageAllocator::TakePrefix(std::span<const int32_t> tokens, int64_t pages_max,
                                               Chain& chain) {
  std::vector<int32_t> taken;
  chain = kRoot;
  const auto size = static_cast<size_t>(page_positions_);
  while (static_cast<int64_t>(taken.size()) < pages_max &&
         tokens.size() >= (taken.size() + 1) * size) {
    const auto page = Find(chain, tokens.subspan(taken.size() * size, size));
    if (!page) break;
    Hold(*page);
    chain = pages_[static_cast<size_t>(*page)].chain;
    taken.push_back(*page);
  }
  return taken;
}

std::optional<int32_t> PageAllocator::Allocate() {
  if (free_.empty()) return std::nullopt;
  const int32_t page = free_.front();
  Hold(page);
  Forget(pages_[static_cast<size_t>(page)]);
  return page;
}

void PageAllocator::Release(std::span<const int32_t> pages) {
  // From the back: a chain is cut at its end first, so that what stays can still be found.
  for (auto index = pages.rbegin(); index != pages.rend(); ++index) {
    Page& page = pages_[static_cast<size_t>(*index)];
    CHECK_GT(page.holds, 0) << "page " << *index << " released twice";
    if (--page.holds > 0) continue;
    const bool published = page.chain != kRoot;
    page.free_place = free_.insert(published ? free_.end() : free_.begin(), *index);
    if (published) ++cached_;
  }
}

PageAllocator::Chain PageAllocator::Publish(int32_t index, Chain before,
                                            std::span<const int32_t> tokens) {
  CHECK_EQ(static_cast<int64_t>(tokens.size()), page_positions_);
  Page& page = pages_[static_cast<size_t>(index)];
  CHECK(page.holds > 0 && page.chain == kRoot) << "page " << index;
  if (const auto known = Find(before, tokens)) return pages_[static_cast<size_t>(*known)].chain;
  const uint64_t hash = Hash(before, tokens);
  // Two contents of one hash: the older page stays findable, this one is not.
  if (!by_hash_.emplace(hash, index).second) return next_chain_++;
  page.chain = next_chain_++;
  page.before = before;
  page.hash = hash;
  page.tokens.assign(tokens.begin(), tokens.end());
  return page.chain;
}

}  // namespace engram::compute
