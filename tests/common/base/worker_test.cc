#include "common/base/worker.h"

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <optional>
#include <vector>

#include "common/base/check.h"

namespace engram {
namespace {

// A task that has begun and ends when told to.
struct Gate {
  explicit Gate(Worker& worker) {
    CHECK(worker.TryPost([this] {
      begun.set_value();
      opened.get_future().wait();
    }));
    begun.get_future().wait();
  }
  std::promise<void> begun, opened;
};

TEST(Worker, TasksRunInOrder) {
  Worker worker(100);
  Gate gate(worker);
  std::vector<int> order;
  std::promise<void> done;
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(worker.TryPost([&order, i] { order.push_back(i); }));
  ASSERT_TRUE(worker.TryPost([&] { done.set_value(); }));
  EXPECT_EQ(worker.waiting(), 51u);
  gate.opened.set_value();
  done.get_future().wait();
  ASSERT_EQ(order.size(), 50u);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(Worker, WhatWaitsIsBoundedAndTheRunningOneDoesNotCount) {
  Worker worker(2);
  Gate gate(worker);
  std::promise<void> last;
  EXPECT_TRUE(worker.TryPost([] {}));
  EXPECT_TRUE(worker.TryPost([&] { last.set_value(); }));
  EXPECT_FALSE(worker.TryPost([] { FAIL(); }));
  gate.opened.set_value();
  last.get_future().wait();
  std::promise<void> again;
  EXPECT_TRUE(worker.TryPost([&] { again.set_value(); }));
  again.get_future().wait();
}

TEST(Worker, ClosingDropsWhatWaitsAndAwaitsWhatRuns) {
  std::optional<Worker> worker(std::in_place, 2);
  Gate gate(*worker);
  std::promise<void> dropped;
  const auto notice = [&](int* value) {
    delete value;
    dropped.set_value();
  };
  ASSERT_TRUE(worker->TryPost([held = std::shared_ptr<int>(new int(1), notice)] { FAIL(); }));
  std::future<void> closing = std::async(std::launch::async, [&] { worker.reset(); });
  dropped.get_future().wait();
  gate.opened.set_value();
  closing.get();
}

}  // namespace
}  // namespace engram
