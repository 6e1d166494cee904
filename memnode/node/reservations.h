// Which tool may change the publication of a model now. Tools take a reservation on the first of
// the cluster's members (in the order of their names), so that of two that begin at the same time
// the second is refused before anything has changed. A reservation is kept in memory and ends by
// itself, so that a tool that died keeps no other one out. Publications of two tools that both
// believe to have it are ordered by generation and version (version_manager.h).
//
// Any thread.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"

namespace engram::memnode {

class Reservations {
 public:
  static constexpr Nanos kKept = std::chrono::seconds(15);  // after it was taken or renewed
  static constexpr size_t kMax = 64;                        // models reserved at once

  explicit Reservations(const Clock& clock = Clock::Real()) : clock_(clock) {}

  // Takes or renews. `token` is the tool's own, hard to guess; `holder` names the tool that has
  // it. FAILED_PRECONDITION names the holder; RESOURCE_EXHAUSTED over kMax.
  Status Take(const std::string& model, const std::string& token, const std::string& holder);
  // No error when it is not the token's.
  void Release(const std::string& model, const std::string& token);
  // FAILED_PRECONDITION names the holder when another tool has reserved the model. `token` may be
  // empty: none.
  Status Check(const std::string& model, const std::string& token) const;

  struct Reserved {
    std::string model, holder;
  };
  std::vector<Reserved> List() const;  // those that have not ended

 private:
  struct Held {
    std::string token, holder;
    TimePoint since, until;
  };
  Status CheckLocked(const std::string& model, const std::string& token) const;

  const Clock& clock_;
  mutable std::mutex mutex_;
  std::map<std::string, Held> held_;  // by model; guarded by mutex_
};

}  // namespace engram::memnode
