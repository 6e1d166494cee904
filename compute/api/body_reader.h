// The bodies of requests: small ones are read at once, large ones on a worker, so that a prompt of
// megabytes delays only its own answer. Used by ApiServer on the HTTP service's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>

#include "common/base/worker.h"
#include "common/net/http/service.h"
#include "compute/api/api_metrics.h"
#include "compute/api/completion_run.h"

namespace engram::compute {

class BodyReader {
 public:
  using Reply = std::shared_ptr<net::HttpReply>;
  // What is left to do on the HTTP thread once a body is read; not called when its client has left.
  using Rest = std::function<void(const Reply& reply)>;
  // Parses and tokenises; on either thread.
  using Read = std::function<Rest(const std::string& body)>;

  // 16 KiB of English are read in 1.8 ms, 8 MiB in a second (vocabulary of 4000).
  inline static constexpr size_t kInlineBytesMax = 16 * 1024;
  inline static constexpr size_t kBodiesWaitingMax = 16;

  // `mailbox` leads to the thread that everything here runs on; `metrics` outlives this.
  BodyReader(std::unique_ptr<Worker> worker, std::shared_ptr<Mailbox> mailbox, ApiMetrics* metrics)
      : mailbox_(std::move(mailbox)), metrics_(*metrics), worker_(std::move(worker)) {}

  // False when too many large bodies wait: nothing is read.
  [[nodiscard]] bool Take(std::string body, const Reply& reply, Read read);

 private:
  struct Waiting {
    Reply reply;
    std::stop_source left;  // its client has
  };

  void Finish(uint64_t number, const Rest& rest);
  void Leave(uint64_t number);

  const std::shared_ptr<Mailbox> mailbox_;
  ApiMetrics& metrics_;
  std::map<uint64_t, Waiting> waiting_;  // here, not in tasks: replies are of this thread only
  uint64_t next_number_ = 1;
  const std::unique_ptr<Worker> worker_;  // last: its tasks use this
};

}  // namespace engram::compute
