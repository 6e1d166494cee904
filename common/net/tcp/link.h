// An authenticated connection as a stream of frames: a prefix, a header, a body. Internal to
// common/net.
//
// Sending is one sendmsg from the caller's buffers; what the socket does not take at once waits in
// a bounded ring. Received bytes are delivered where they landed. Nothing allocates once warm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "common/net/tcp/stream.h"

namespace engram::net {

struct FramePrefix {
  uint32_t mark = 0;  // FrameMark of the lengths
  uint32_t header_bytes = 0;
  uint32_t body_bytes = 0;
};
static_assert(sizeof(FramePrefix) == 12);
inline constexpr uint32_t kFrameMagic = 0x464d4745;  // "EGMF"
// kFrameMagic and the CRC-32C of both lengths: a length that changed on the way would make the
// receiver take the next frames for the body, and the connection silent.
uint32_t FrameMark(uint32_t header_bytes, uint32_t body_bytes);

// DATA_LOSS unless it is ours and within kHeaderBytesMax and kBodyBytesMax.
Status CheckPrefix(const FramePrefix& prefix);

class TcpLink {
 public:
  // RESOURCE_EXHAUSTED: no memory for the receive buffer.
  static Result<std::unique_ptr<TcpLink>> Make(TcpStream stream);

  int fd() const { return stream_.fd(); }
  // As Transport::Send; an error when the ring is full or the connection over.
  Status Send(std::span<const std::byte> header, std::span<const std::byte> body,
              std::function<void(Status)> done, bool more = false);
  // Sends of what waits; the number completed.
  int Flush();
  bool wants_write() const { return waiting_ > 0; }
  // Receives once and gives each whole frame to `deliver(header, body)`, which returns false to
  // stop; the number delivered. After an error why() is not ok.
  template <typename Deliver>
  int Receive(Deliver deliver);
  bool may_have_more() const { return stream_.may_have_more() || full_read_; }
  // How the connection ended, ok while it has not.
  const Status& why() const { return why_; }
  // Completes everything that waits with `status`.
  void Abandon(const Status& status);

 private:
  struct Waiting {
    std::vector<std::byte> head;  // prefix and header
    std::span<const std::byte> body;
    size_t sent = 0;
    std::function<void(Status)> done;
  };
  explicit TcpLink(TcpStream stream);
  size_t CollectPieces(std::span<iovec> pieces);
  int Advance(size_t bytes);
  bool ReceiveBytes();
  void MakeRoom();

  TcpStream stream_;
  Status why_;
  AlignedBuffer buffer_;
  size_t begin_ = 0, end_ = 0;  // received and not delivered
  bool full_read_ = false;      // the last receive left bytes in the socket
  std::vector<Waiting> ring_;
  size_t first_ = 0, waiting_ = 0;
  bool socket_full_ = false;  // it did not take all of the last send
};

template <typename Deliver>
int TcpLink::Receive(Deliver deliver) {
  if (!ReceiveBytes()) return 0;
  int delivered = 0;
  bool going_on = true;
  while (going_on && why_.ok() && end_ - begin_ >= sizeof(FramePrefix)) {
    FramePrefix prefix;
    __builtin_memcpy(&prefix, buffer_.data() + begin_, sizeof(prefix));
    why_ = CheckPrefix(prefix);
    if (!why_.ok()) break;
    const size_t frame_bytes = sizeof(prefix) + prefix.header_bytes + prefix.body_bytes;
    if (end_ - begin_ < frame_bytes) break;
    const std::byte* header = buffer_.data() + begin_ + sizeof(prefix);
    begin_ += frame_bytes;
    ++delivered;
    going_on = deliver(std::span(header, prefix.header_bytes),
                       std::span(header + prefix.header_bytes, prefix.body_bytes));
  }
  MakeRoom();
  return delivered;
}

}  // namespace engram::net
