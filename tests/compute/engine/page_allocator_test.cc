// Pages are held, shared, kept for another prompt and taken back in the right order.
#include "compute/engine/page_allocator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "common/base/rng.h"

namespace engram::compute {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Chain = PageAllocator::Chain;

// Allocates and publishes pages of two for `tokens`.
std::vector<int32_t> Fill(PageAllocator& pages, const std::vector<int32_t>& tokens) {
  std::vector<int32_t> held;
  Chain chain = PageAllocator::kRoot;
  for (size_t i = 0; i + 2 <= tokens.size(); i += 2) {
    held.push_back(*pages.Allocate());
    chain = pages.Publish(held.back(), chain, std::span(tokens).subspan(i, 2));
  }
  return held;
}

std::vector<int32_t> Take(PageAllocator& pages, const std::vector<int32_t>& tokens,
                          int64_t pages_max = 100) {
  Chain chain = 0;
  return pages.TakePrefix(tokens, pages_max, chain);
}

TEST(PageAllocator, FindsTheLongestCachedBeginning) {
  PageAllocator pages(8, 2);
  const auto held = Fill(pages, {1, 2, 3, 4, 5, 6});
  EXPECT_THAT(Take(pages, {1, 2, 3, 4, 9, 9}), ElementsAre(held[0], held[1]));
  EXPECT_THAT(Take(pages, {1, 2, 3}), ElementsAre(held[0]));
  EXPECT_THAT(Take(pages, {1, 2, 3, 4, 5, 6, 7}, 1), ElementsAre(held[0]));
  EXPECT_THAT(Take(pages, {3, 4, 5, 6}), IsEmpty());  // in the middle of a prompt is not its start
  EXPECT_THAT(Take(pages, {2, 1}), IsEmpty());
}

TEST(PageAllocator, SharedPagesAreFreeWhenTheLastHolderIsGone) {
  PageAllocator pages(4, 2);
  const auto held = Fill(pages, {1, 2, 3, 4});
  const auto shared = Take(pages, {1, 2, 3, 4});
  EXPECT_EQ(shared, held);
  pages.Release(held);
  EXPECT_EQ(pages.used(), 2);
  pages.Release(shared);
  EXPECT_EQ(pages.used(), 0);
  EXPECT_EQ(pages.cached(), 2);
  EXPECT_EQ(Take(pages, {1, 2, 3, 4}), held);
  EXPECT_EQ(pages.cached(), 0);
}

TEST(PageAllocator, UnknownPagesGoFirstThenTheLeastRecentlyUsedFromTheEndOfItsChain) {
  PageAllocator pages(5, 2);
  const auto old = Fill(pages, {1, 2, 3, 4});
  const auto young = Fill(pages, {5, 6});
  const std::vector<int32_t> unknown = {*pages.Allocate()};
  pages.Release(old);
  pages.Release(young);
  pages.Release(unknown);
  EXPECT_EQ(pages.available(), 5);
  pages.Allocate();
  pages.Allocate();
  EXPECT_EQ(pages.cached(), 3);
  EXPECT_EQ(pages.Allocate(), old[1]);
  EXPECT_THAT(Take(pages, {1, 2, 3, 4}), ElementsAre(old[0]));  // now held
  EXPECT_EQ(pages.Allocate(), young[0]);
  EXPECT_EQ(pages.Allocate(), std::nullopt);
}

TEST(PageAllocator, ARewrittenPageIsNotFoundUnderItsOldContent) {
  PageAllocator pages(1, 2);
  pages.Release(Fill(pages, {1, 2}));
  EXPECT_EQ(pages.Allocate(), 0);
  EXPECT_THAT(Take(pages, {1, 2}), IsEmpty());
  pages.Publish(0, PageAllocator::kRoot, std::vector<int32_t>{7, 8});
  EXPECT_THAT(Take(pages, {7, 8}), ElementsAre(0));
}

TEST(PageAllocator, AnEvictedBeginningHidesWhatCameBehindItEvenWhenComputedAgain) {
  PageAllocator pages(3, 2);
  const auto held = Fill(pages, {1, 2, 3, 4});
  pages.Release(std::vector<int32_t>{held[0]});  // the second stays held
  ASSERT_NE(pages.Allocate(), std::nullopt);
  ASSERT_EQ(pages.Allocate(), held[0]);
  EXPECT_THAT(Take(pages, {1, 2, 3, 4}), IsEmpty());
  pages.Publish(held[0], PageAllocator::kRoot, std::vector<int32_t>{1, 2});
  EXPECT_THAT(Take(pages, {1, 2, 3, 4}), ElementsAre(held[0]));
}

TEST(PageAllocator, TheSameContentTwiceIsOneChain) {
  PageAllocator pages(4, 2);
  const std::vector<int32_t> tokens = {1, 2};
  const int32_t a = *pages.Allocate();
  const int32_t b = *pages.Allocate();
  const Chain first = pages.Publish(a, PageAllocator::kRoot, tokens);
  EXPECT_EQ(pages.Publish(b, PageAllocator::kRoot, tokens), first);
  EXPECT_THAT(Take(pages, tokens), ElementsAre(a));
}

// Against a plain model of the holds, for some thousand random operations.
TEST(PageAllocator, CountsHoldUnderRandomUse) {
  Rng rng(11);
  PageAllocator pages(32, 2);
  struct User {
    std::vector<int32_t> tokens, held;
    Chain chain = PageAllocator::kRoot;
  };
  std::vector<User> users;
  std::map<int32_t, std::vector<int32_t>> content;  // of published pages, the whole beginning
  for (int i = 0; i < 5000; ++i) {
    if (users.size() < 6 && rng.NextBelow(2) == 0) {
      User user;
      for (int t = 0; t < 12; ++t) user.tokens.push_back(static_cast<int32_t>(rng.NextBelow(2)));
      user.held = pages.TakePrefix(user.tokens, 6, user.chain);
      for (size_t p = 0; p < user.held.size(); ++p) {
        const std::vector<int32_t> beginning(user.tokens.begin(),
                                             user.tokens.begin() + static_cast<long>(2 * p + 2));
        ASSERT_EQ(content[user.held[p]], beginning) << "a hit on other tokens";
      }
      users.push_back(user);
    } else if (!users.empty()) {
      User& user = users[rng.NextBelow(users.size())];
      const size_t page = user.held.size();
      const auto next = page < 6 && rng.NextBelow(4) > 0 ? pages.Allocate() : std::nullopt;
      if (next) {
        user.held.push_back(*next);
        user.chain = pages.Publish(*next, user.chain, std::span(user.tokens).subspan(2 * page, 2));
        content[*next].assign(user.tokens.begin(),
                              user.tokens.begin() + static_cast<long>(2 * page + 2));
      } else {
        pages.Release(user.held);
        std::swap(user, users.back());
        users.pop_back();
      }
    }
    std::set<int32_t> held;
    for (const User& user : users) held.insert(user.held.begin(), user.held.end());
    ASSERT_EQ(pages.used(), static_cast<int64_t>(held.size()));
  }
}

}  // namespace
}  // namespace engram::compute
