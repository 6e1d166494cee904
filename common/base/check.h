// CHECK(condition) << "context": programmer errors, always on. Prints file, line, condition and
// context, then aborts. DCHECK is the same in debug builds only, for inner loops. Operating errors
// use Status instead.
#pragma once

#include <sstream>

namespace engram::base_internal {

class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

struct Voidify {
  void operator&(std::ostream&) const {}
};

}  // namespace engram::base_internal

#define CHECK(condition)                             \
  (condition) ? (void)0                              \
              : ::engram::base_internal::Voidify() & \
                    ::engram::base_internal::CheckFailure(__FILE__, __LINE__, #condition).stream()
#define ENGRAM_CHECK_OP_(a, op, b) CHECK((a)op(b)) << "(" << (a) << " vs " << (b) << ") "
#define CHECK_EQ(a, b) ENGRAM_CHECK_OP_(a, ==, b)
#define CHECK_NE(a, b) ENGRAM_CHECK_OP_(a, !=, b)
#define CHECK_LT(a, b) ENGRAM_CHECK_OP_(a, <, b)
#define CHECK_LE(a, b) ENGRAM_CHECK_OP_(a, <=, b)
#define CHECK_GT(a, b) ENGRAM_CHECK_OP_(a, >, b)
#define CHECK_GE(a, b) ENGRAM_CHECK_OP_(a, >=, b)

#ifdef NDEBUG
#define DCHECK(condition) CHECK(true || (condition))
#else
#define DCHECK(condition) CHECK(condition)
#endif
