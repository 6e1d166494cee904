// What to say to a keyed store and how to read what it answers. One object a store; the connection
// (socket_peer.h) is the same for all.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "tests/bench/harness/batch.h"
#include "tests/bench/peers/reply_parser.h"

namespace engram::bench {

class Protocol {
 public:
  virtual ~Protocol() = default;
  virtual void AppendStore(uint64_t layer, uint64_t row, std::span<const std::byte> value,
                           std::string* request) const = 0;
  // The line that acknowledges one store.
  virtual std::string_view stored_line() const = 0;
  // One request for a whole batch.
  virtual void AppendRead(const Batch& batch, std::string* request) const = 0;
  virtual std::unique_ptr<BatchParser> MakeParser(size_t value_bytes) const = 0;
};

std::unique_ptr<Protocol> RedisProtocol();          // MGET
std::unique_ptr<Protocol> MemcachedTextProtocol();  // get key key ...
std::unique_ptr<Protocol> MemcachedMetaProtocol();  // mg key v, pipelined in one send

}  // namespace engram::bench
