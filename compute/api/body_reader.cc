#include "compute/api/body_reader.h"

#include <utility>

namespace engram::compute {

bool BodyReader::Take(std::string body, const Reply& reply, Read read) {
  if (body.size() <= kInlineBytesMax) {
    read(body)(reply);
    return true;
  }
  const uint64_t number = next_number_++;
  std::stop_source left;
  const bool taken = worker_->TryPost(
      [this, number, body = std::move(body), read = std::move(read), token = left.get_token()] {
        if (token.stop_requested()) return;
        mailbox_->Post([this, number, rest = read(body)] { Finish(number, rest); });
      });
  if (!taken) return false;
  waiting_.emplace(number, Waiting{reply, std::move(left)});
  reply->OnGone([this, number] { Leave(number); });
  return true;
}

void BodyReader::Finish(uint64_t number, const Rest& rest) {
  const auto found = waiting_.extract(number);
  if (!found.empty()) rest(found.mapped().reply);
}

void BodyReader::Leave(uint64_t number) {
  const auto found = waiting_.extract(number);
  if (found.empty()) return;  // it is read; its CompletionRun notices by itself
  found.mapped().left.request_stop();
  metrics_.ClientGone();
}

}  // namespace engram::compute
