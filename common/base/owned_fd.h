// OwnedFd: the one owner of a file descriptor, closed at its end. Move-only.
#pragma once

#include <unistd.h>

#include <utility>

namespace engram {

class OwnedFd {
 public:
  explicit OwnedFd(int fd = -1) : fd_(fd) {}  // below 0: none
  ~OwnedFd() {
    if (fd_ >= 0) ::close(fd_);
  }
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    OwnedFd old(std::exchange(fd_, std::exchange(other.fd_, -1)));  // closes what it held
    return *this;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace engram
