// A test program that has run out of file descriptors, and gets them back.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <vector>

namespace engram::net {

// Gives descriptors back at its end.
class FewDescriptors {
 public:
  FewDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit few = before_;
    few.rlim_cur = 512;
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() {
    Release(taken_.size());
    ::setrlimit(RLIMIT_NOFILE, &before_);
  }
  // Until there is none left.
  void TakeAll() {
    for (int fd = 0; (fd = ::fcntl(0, F_DUPFD_CLOEXEC, 3)) >= 0;) taken_.push_back(fd);
  }
  void Release(size_t count) {
    for (; count > 0; --count, taken_.pop_back()) ::close(taken_.back());
  }

 private:
  rlimit before_ = {};
  std::vector<int> taken_;
};

}  // namespace engram::net
