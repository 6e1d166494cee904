#include "tests/support/process_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace engram::testing_support {
namespace {

constexpr uint64_t kMappingBytesMax = uint64_t{1} << 30;

}  // namespace

int FlipInMemoryOf(pid_t pid, std::span<const std::byte> wanted) {
  const std::string folder = "/proc/" + std::to_string(pid);
  const int memory = ::open((folder + "/mem").c_str(), O_RDWR | O_CLOEXEC);
  if (memory < 0) return -1;
  int flipped = 0;
  std::ifstream maps(folder + "/maps");
  for (std::string line; std::getline(maps, line);) {
    uint64_t begin = 0, end = 0;
    char mode[5] = {};
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s", &begin, &end, mode) != 3) continue;
    if (mode[0] != 'r' || mode[1] != 'w') continue;
    if (end - begin > kMappingBytesMax) continue;  // no arena: a sanitizer's shadow
    std::vector<std::byte> bytes(end - begin);
    const ssize_t got = ::pread(memory, bytes.data(), bytes.size(), static_cast<off_t>(begin));
    if (got <= 0) continue;
    const auto last = bytes.begin() + got;
    for (auto at = std::search(bytes.begin(), last, wanted.begin(), wanted.end()); at != last;
         at = std::search(at + 1, last, wanted.begin(), wanted.end())) {
      const std::byte changed = *at ^ std::byte{0x04};
      const auto where = static_cast<off_t>(begin + static_cast<uint64_t>(at - bytes.begin()));
      if (::pwrite(memory, &changed, 1, where) == 1) ++flipped;
    }
  }
  ::close(memory);
  return flipped;
}

}  // namespace engram::testing_support
