// The bare round trip: a request and a reply of given sizes over one TCP connection on loopback,
// both sides polling, nothing read or made of the bytes. What a lookup of that size would take if
// the service had no work to do.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "common/base/status.h"
#include "tests/bench/harness/machine.h"
#include "tests/bench/harness/rounds.h"

namespace engram::bench {

class BareRoundTrip {
 public:
  // The echoing thread runs on cores.server, and sleeps outside Run.
  static Result<std::unique_ptr<BareRoundTrip>> Start(size_t request_bytes, size_t reply_bytes,
                                                      const Cores& cores);
  ~BareRoundTrip();
  // Round::rows is round trips times `rows`.
  Result<Round> Run(double seconds, size_t rows);

 private:
  BareRoundTrip(size_t request_bytes, size_t reply_bytes)
      : request_(request_bytes), reply_(reply_bytes) {}
  void Serve(int cpu);

  std::vector<char> request_;
  std::vector<char> reply_;
  int client_ = -1;
  int server_ = -1;
  std::atomic<bool> polling_ = false;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace engram::bench
