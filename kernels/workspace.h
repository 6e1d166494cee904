// Workspace: the memory of a step's intermediate values. Reserved once, it hands out spans one
// behind the other and takes them back in the opposite order, so that an operation finds the lines
// of the one before still in cache. One thread takes; other threads use what it took.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "common/base/buffer.h"

namespace engram::kernels {

class Workspace {
 public:
  // Room for `bytes` in one piece. RESOURCE_EXHAUSTED when there is no memory.
  Status Reserve(int64_t bytes);

  // `count` values, not initialised, aligned to 64 bytes: until the innermost Scope ends, or for as
  // long as the workspace lives. What was not reserved is allocated, counted, and kept.
  template <typename T>
  std::span<T> Take(int64_t count) {
    static_assert(std::is_trivially_destructible_v<T>);
    return std::span(reinterpret_cast<T*>(TakeBytes(count * int64_t{sizeof(T)})), count);
  }
  int64_t growths() const { return growths_; }  // pieces of memory that were not reserved

  // Gives back at its end what was taken since its beginning.
  class Scope {
   public:
    explicit Scope(Workspace& memory)
        : memory_(memory), piece_(memory.piece_), used_(memory.used_) {}
    ~Scope() {
      memory_.piece_ = piece_;
      memory_.used_ = used_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Workspace& memory_;
    const int64_t piece_, used_;
  };

 private:
  std::byte* TakeBytes(int64_t bytes);

  std::vector<AlignedBuffer> pieces_;
  int64_t piece_ = 0;  // the one that is handed out
  int64_t used_ = 0;   // bytes of it
  int64_t growths_ = 0;
};

}  // namespace engram::kernels
