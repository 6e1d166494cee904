#include "common/net/tcp/link.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <utility>

#include "common/base/crc32c.h"
#include "common/net/transport.h"

namespace engram::net {
namespace {

// Two of the largest frames, so that the tail of one is moved only now and then.
constexpr size_t kBufferBytes = 2 * (sizeof(FramePrefix) + kHeaderBytesMax + kBodyBytesMax);
constexpr size_t kFrameBytesMax = kBufferBytes / 2;
// At once: what a socket usually holds, and little enough to stay in the second-level cache.
constexpr size_t kReceiveBytes = 256 * 1024;
constexpr size_t kWaitingMax = 256;
constexpr size_t kFramesTogether = 4;  // in one sendmsg

}  // namespace

uint32_t FrameMark(uint32_t header_bytes, uint32_t body_bytes) {
  const std::array<uint32_t, 2> lengths = {header_bytes, body_bytes};
  return kFrameMagic ^ Crc32c(std::as_bytes(std::span(lengths)));
}

Status CheckPrefix(const FramePrefix& prefix) {
  const uint32_t mark = FrameMark(prefix.header_bytes, prefix.body_bytes);
  if (prefix.mark == mark && prefix.header_bytes <= kHeaderBytesMax &&
      prefix.body_bytes <= kBodyBytesMax) {
    return OkStatus();
  }
  return DataLoss(fmt::format(
      "a frame of {} + {} bytes with mark {:08x}; limits are {} + {}, the mark {:08x}",
      prefix.header_bytes, prefix.body_bytes, prefix.mark, kHeaderBytesMax, kBodyBytesMax, mark));
}

TcpLink::TcpLink(TcpStream stream) : stream_(std::move(stream)), ring_(kWaitingMax) {}

Result<std::unique_ptr<TcpLink>> TcpLink::Make(TcpStream stream) {
  std::unique_ptr<TcpLink> link(new TcpLink(std::move(stream)));
  ASSIGN_OR_RETURN(link->buffer_, AlignedBuffer::Allocate(kBufferBytes, PageBacking::kSmall));
  return link;
}

Status TcpLink::Send(std::span<const std::byte> header, std::span<const std::byte> body,
                     std::function<void(Status)> done, bool more) {
  if (!why_.ok()) return why_;
  if (waiting_ == ring_.size()) {
    return ResourceExhausted(
        fmt::format("{} messages wait for a peer that takes no bytes", waiting_));
  }
  const auto header_bytes = static_cast<uint32_t>(header.size());
  const auto body_bytes = static_cast<uint32_t>(body.size());
  const FramePrefix prefix = {FrameMark(header_bytes, body_bytes), header_bytes, body_bytes};
  size_t sent = 0;
  if (waiting_ == 0 && !more) {
    const std::array<iovec, 3> pieces = {
        iovec{const_cast<FramePrefix*>(&prefix), sizeof(prefix)},
        iovec{const_cast<std::byte*>(header.data()), header.size()},
        iovec{const_cast<std::byte*>(body.data()), body.size()}};
    const ssize_t bytes = stream_.Send(pieces);
    if (bytes < 0) return why_ = stream_.why();
    sent = static_cast<size_t>(bytes);
    if (sent == sizeof(prefix) + header.size() + body.size()) {
      if (done) done(OkStatus());
      return OkStatus();
    }
    socket_full_ = true;
  }
  Waiting& last = ring_[(first_ + waiting_++) % ring_.size()];
  last.head.resize(sizeof(prefix) + header.size());
  std::memcpy(last.head.data(), &prefix, sizeof(prefix));
  if (!header.empty()) {
    std::memcpy(last.head.data() + sizeof(prefix), header.data(), header.size());
  }
  last.body = body;
  last.sent = sent;
  last.done = std::move(done);
  // It is queued; Abandon completes it if the connection ends.
  if (!more && !socket_full_) Flush();
  return OkStatus();
}

// What is left of the first waiting frames, as pieces of one sendmsg.
size_t TcpLink::CollectPieces(std::span<iovec> pieces) {
  size_t count = 0;
  for (size_t i = 0; i < waiting_ && count + 2 <= pieces.size(); ++i) {
    Waiting& next = ring_[(first_ + i) % ring_.size()];
    const size_t head = std::min(next.sent, next.head.size());
    const size_t body = next.sent - head;
    pieces[count++] = {next.head.data() + head, next.head.size() - head};
    pieces[count++] = {const_cast<std::byte*>(next.body.data()) + body, next.body.size() - body};
  }
  return count;
}

// Counts `bytes` as sent, and ends the frames that are; the number of them.
int TcpLink::Advance(size_t bytes) {
  int completed = 0;
  while (waiting_ > 0) {
    Waiting& next = ring_[first_];
    const size_t left = next.head.size() + next.body.size() - next.sent;
    const size_t part = std::min(bytes, left);
    next.sent += part;
    bytes -= part;
    if (part < left) break;
    const auto done = std::move(next.done);
    next.done = {};
    first_ = (first_ + 1) % ring_.size();
    --waiting_;
    ++completed;
    if (done) done(OkStatus());
    if (bytes == 0) break;
  }
  return completed;
}

int TcpLink::Flush() {
  int completed = 0;
  // What `done` sends in turn waits for the next call.
  for (size_t left = waiting_; left > 0 && waiting_ > 0 && why_.ok();) {
    std::array<iovec, 2 * kFramesTogether> pieces;
    const size_t count =
        CollectPieces(std::span(pieces).first(2 * std::min(left, kFramesTogether)));
    size_t wanted = 0;
    for (size_t i = 0; i < count; ++i) wanted += pieces[i].iov_len;
    const ssize_t bytes = stream_.Send(std::span(pieces).first(count));
    if (bytes < 0) why_ = stream_.why();
    socket_full_ = bytes >= 0 && static_cast<size_t>(bytes) < wanted;
    if (bytes > 0) completed += Advance(static_cast<size_t>(bytes));
    if (bytes < 0 || socket_full_) break;
    left -= count / 2;
  }
  return completed;
}

void TcpLink::Abandon(const Status& status) {
  while (waiting_ > 0) {
    const auto done = std::move(ring_[first_].done);
    ring_[first_].done = {};
    first_ = (first_ + 1) % ring_.size();
    --waiting_;
    if (done) done(status);
  }
}

bool TcpLink::ReceiveBytes() {
  if (!why_.ok()) return false;
  const size_t room = std::min(kReceiveBytes, buffer_.size_bytes() - end_);
  const ssize_t bytes = stream_.Receive(buffer_.bytes().subspan(end_, room));
  full_read_ = bytes == static_cast<ssize_t>(room);
  if (bytes < 0) why_ = stream_.why();
  if (bytes > 0) end_ += static_cast<size_t>(bytes);
  return bytes > 0;
}

// A frame that has begun must fit behind begin_.
void TcpLink::MakeRoom() {
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (buffer_.size_bytes() - begin_ < kFrameBytesMax) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
}

}  // namespace engram::net
