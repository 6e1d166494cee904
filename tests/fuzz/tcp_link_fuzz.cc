// Fuzzes the frame reader of the TCP wire (common/net/tcp/link.h) over a socket pair. Input: a byte
// that says how the stream is cut into packets, then the stream. What is delivered must be exactly
// the frames a reader without buffers finds, up to the first bad prefix, and not a byte more.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "common/base/check.h"
#include "common/net/tcp/link.h"
#include "common/net/transport.h"

namespace {

using namespace engram;
using namespace engram::net;
using Bytes = std::span<const std::byte>;

struct Frame {
  Bytes header;
  Bytes body;
};

// The whole frames at the stream's beginning; `bad` when a wrong prefix follows them.
std::vector<Frame> FramesIn(Bytes stream, bool* bad) {
  std::vector<Frame> frames;
  *bad = false;
  FramePrefix prefix;
  while (stream.size() >= sizeof(prefix)) {
    std::memcpy(&prefix, stream.data(), sizeof(prefix));
    *bad = prefix.mark != FrameMark(prefix.header_bytes, prefix.body_bytes) ||
           prefix.header_bytes > kHeaderBytesMax || prefix.body_bytes > kBodyBytesMax;
    const size_t content = size_t{prefix.header_bytes} + prefix.body_bytes;
    if (*bad || stream.size() - sizeof(prefix) < content) break;
    stream = stream.subspan(sizeof(prefix));
    frames.push_back({stream.first(prefix.header_bytes),
                      stream.subspan(prefix.header_bytes, prefix.body_bytes)});
    stream = stream.subspan(content);
  }
  return frames;
}

bool SameBytes(Bytes a, Bytes b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Bytes stream = std::as_bytes(std::span(data, size)).subspan(1);
  const size_t packet_bytes = 1 + size_t{data[0]} * 64;
  bool bad = false;
  const std::vector<Frame> expected = FramesIn(stream, &bad);

  int ends[2] = {-1, -1};
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  auto link = TcpLink::Make(TcpStream(ends[0]));
  CHECK(link.ok());
  size_t delivered = 0;
  const auto deliver = [&](Bytes header, Bytes body) {
    CHECK_LT(delivered, expected.size()) << "a frame that was not sent";
    CHECK(SameBytes(header, expected[delivered].header));
    CHECK(SameBytes(body, expected[delivered].body));
    ++delivered;
    return true;
  };
  for (size_t at = 0; at < stream.size(); at += packet_bytes) {
    const Bytes packet = stream.subspan(at, std::min(packet_bytes, stream.size() - at));
    if (send(ends[1], packet.data(), packet.size(), MSG_NOSIGNAL) < 0) break;
    while ((*link)->Receive(deliver) > 0) {
    }
  }
  CHECK_EQ(delivered, expected.size());
  CHECK_EQ((*link)->why().ok(), !bad);
  close(ends[1]);
  while ((*link)->Receive(deliver) > 0) {
  }
  CHECK_EQ(delivered, expected.size());
  CHECK(!(*link)->why().ok()) << "the end of the stream went unnoticed";
  return 0;
}
