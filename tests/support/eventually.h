// Waiting for what another thread or process does, with an end.
#pragma once

#include <chrono>
#include <thread>

namespace engram::testing_support {

// Whether `condition` becomes true within the limit. It is asked again and again, on this thread.
template <typename Condition>
bool Eventually(const Condition& condition,
                std::chrono::nanoseconds limit = std::chrono::seconds(20)) {
  for (const auto end = std::chrono::steady_clock::now() + limit; !condition();) {
    if (std::chrono::steady_clock::now() > end) return condition();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace engram::testing_support
