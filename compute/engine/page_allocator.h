// The holders of each page of the latent cache, and the full pages that still hold the beginning of
// a prompt. A full page may be shared by several sequences; it is kept after its last user is gone
// until its memory is needed, least recently used first. The prefix cache is a hash chain: a page
// is found by its tokens and the page before it, both compared, so a hash collision costs a miss
// and never gives another prompt's state. Bookkeeping only: no page's bytes are touched here. The
// engine's thread.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

namespace engram::compute {

class PageAllocator {
 public:
  // What stands before a page: the publication of the page before it; kRoot at the start.
  using Chain = uint64_t;
  static constexpr Chain kRoot = 0;

  PageAllocator(int64_t pages, int64_t page_positions);

  // Pages that hold the longest cached beginning of `tokens`, at most `pages_max`; each is held
  // once more. `chain` becomes the last one's.
  std::vector<int32_t> TakePrefix(std::span<const int32_t> tokens, int64_t pages_max, Chain& chain);
  // A page of no known content, held once; nothing when every page is held.
  std::optional<int32_t> Allocate();
  // Gives up one hold of each; pages without a hold are free, the last one of the list first.
  void Release(std::span<const int32_t> pages);
  // Says that a held, full page holds `tokens` behind `before`. Returns the chain up to it, which
  // is that of another page when one with this content is known already.
  Chain Publish(int32_t page, Chain before, std::span<const int32_t> tokens);

  int64_t page_positions() const { return page_positions_; }
  int64_t total() const { return static_cast<int64_t>(pages_.size()); }
  int64_t available() const { return static_cast<int64_t>(free_.size()); }  // cached ones too
  int64_t cached() const { return cached_; }                                // of the available ones
  int64_t used() const { return total() - available(); }

 private:
  struct Page {
    int64_t holds = 0;
    Chain chain = kRoot;  // its own, when published
    Chain before = kRoot;
    uint64_t hash = 0;
    std::vector<int32_t> tokens;              // when published
    std::list<int32_t>::iterator free_place;  // when free
  };
  uint64_t Hash(Chain before, std::span<const int32_t> tokens) const;
  // The published page of this content, or nothing.
  std::optional<int32_t> Find(Chain before, std::span<const int32_t> tokens) const;
  void Hold(int32_t page);
  void Forget(Page& page);

  int64_t page_positions_;
  std::vector<Page> pages_;
  std::list<int32_t> free_;  // to be taken from the front
  int64_t cached_ = 0;
  Chain next_chain_ = kRoot + 1;
  std::unordered_map<uint64_t, int32_t> by_hash_;
};

}  // namespace engram::compute
