// A TCP connection over loopback whose reader polls: the client has a core of its own, so a blocked
// read would only add a wake-up to every batch.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "tests/bench/peers/reply_parser.h"

namespace engram::bench {

class PollingSocket {
 public:
  // What may be on its way to the server at once, so that a send never waits for a reader.
  static constexpr size_t kRequestBytesMax = 256 * 1024;

  static Result<PollingSocket> Connect(int port);
  ~PollingSocket();
  PollingSocket(PollingSocket&& other) noexcept;
  PollingSocket& operator=(PollingSocket&&) = delete;

  // DEADLINE_EXCEEDED when the server takes nothing for 10 s, UNAVAILABLE when it is gone.
  Status Send(std::string_view request);
  // Reads until the parser is done; what has arrived beyond that waits for the next one.
  Status Receive(ReplyParser& parser);

 private:
  explicit PollingSocket(int fd) : fd_(fd), buffer_(kBufferBytes) {}
  Status MakeRoom();

  static constexpr size_t kBufferBytes = 512 * 1024;
  int fd_;
  std::vector<char> buffer_;
  size_t begin_ = 0;  // of what has arrived and was not taken
  size_t end_ = 0;
};

}  // namespace engram::bench
