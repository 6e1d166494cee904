#include "common/base/random_bytes.h"

#include <sys/random.h>

#include <cerrno>

#include "common/base/check.h"

namespace engram {

std::string RandomBytes(size_t count) {
  std::string bytes(count, '\0');
  size_t filled = 0;
  while (filled < count) {  // a signal may cut a large request short
    const ssize_t got = ::getrandom(bytes.data() + filled, count - filled, 0);
    CHECK(got > 0 || (got < 0 && errno == EINTR)) << "the system gives no random bytes";
    if (got > 0) filled += static_cast<size_t>(got);
  }
  return bytes;
}

}  // namespace engram
