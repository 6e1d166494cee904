#include "common/obs/line_limit.h"

#include <algorithm>

namespace engram::obs {

LineLimit::Verdict LineLimit::Ask(std::string_view file, uint32_t line, TimePoint now) {
  const std::lock_guard lock(mutex_);
  const auto [found, is_new] = places_.try_emplace({file, line}, Place{burst_, now, 0});
  Place& place = found->second;
  const std::chrono::duration<double> passed = now - place.asked;
  place.allowance = std::min(burst_, place.allowance + passed.count() * per_second_);
  place.asked = now;
  if (place.allowance < 1) {
    ++place.left_out;
    ++suppressed_;
    return {};
  }
  place.allowance -= 1;
  return {true, std::exchange(place.left_out, 0)};
}

uint64_t LineLimit::suppressed() const {
  const std::lock_guard lock(mutex_);
  return suppressed_;
}

}  // namespace engram::obs
