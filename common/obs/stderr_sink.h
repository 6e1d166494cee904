// Writes log lines to stderr from the log's own thread, and gives up on a reader that takes none
// once the process ends.
#pragma once

#include <spdlog/sinks/base_sink.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string_view>

namespace engram::obs {

class StderrSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  // From now on a line that stderr does not take at once is dropped. Any thread.
  void StopWaiting() { waits_ = false; }
  uint64_t taken() const { return taken_; }      // lines handed to this sink and dealt with
  uint64_t dropped() const { return dropped_; }  // of these, not written

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override;
  void flush_() override {}

 private:
  bool Write(std::string_view bytes) const;

  std::atomic<bool> waits_ = true;
  std::atomic<uint64_t> taken_ = 0, dropped_ = 0;
};

}  // namespace engram::obs
