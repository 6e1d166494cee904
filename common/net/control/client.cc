// The client's side of the control connection: blocking, with a deadline over everything.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "common/net/control/admin.h"
#include "common/net/control/control.h"
#include "common/net/control/messages.h"
#include "common/net/tcp/dial.h"

namespace engram::net {
namespace {

class SocketControlClient : public ControlClient {
 public:
  SocketControlClient(TcpStream stream, Welcome welcome)
      : stream_(std::move(stream)), welcome_(std::move(welcome)) {}

  const Welcome& welcome() const override { return welcome_; }
  int fd() const override { return stream_.fd(); }

  // A node has nothing but news to say after its welcome: other bytes end the connection as a close
  // does.
  bool Lost() override {
    while (!lost_) {
      const size_t before = text_.size();
      text_.resize(wanted_);
      const std::span<char> room = std::span(text_).subspan(before);
      const ssize_t received = stream_.Receive(std::as_writable_bytes(room));
      text_.resize(before + static_cast<size_t>(std::max<ssize_t>(received, 0)));
      lost_ = received < 0;
      if (received <= 0) break;
      if (text_.size() == wanted_) TakePart();
    }
    Flush();
    return lost_;
  }
  uint32_t told_epoch() const override { return told_epoch_; }

  bool ReportDamaged(const DamagedRow& row) override {
    Flush();
    if (lost_ || !welcome_.takes_damage || !unsent_.empty()) return false;
    unsent_ = DamagedFrame(row);
    Flush();
    return true;
  }

 private:
  // A frame's length, or its text.
  void TakePart() {
    const std::string part = std::exchange(text_, {});
    if (std::exchange(in_text_, !in_text_)) {
      const Result<uint32_t> epoch = ParseNews(part);
      lost_ = !epoch.ok();
      if (epoch.ok()) told_epoch_ = std::max(told_epoch_, *epoch);
      wanted_ = kFramePrefixBytes;
      return;
    }
    const Result<uint32_t> length = FrameLength(part);
    lost_ = !length.ok() || *length > kNewsFrameBytesMax;
    if (!lost_) wanted_ = *length;
  }

  void Flush() {
    while (!lost_ && !unsent_.empty()) {
      const iovec piece = {unsent_.data(), unsent_.size()};
      const ssize_t sent = stream_.Send({&piece, 1});
      if (sent == 0) return;
      lost_ = sent < 0;
      if (sent > 0) unsent_.erase(0, static_cast<size_t>(sent));
    }
  }

  TcpStream stream_;
  std::string unsent_;  // of one report
  const Welcome welcome_;
  std::string text_;  // of the frame that is being received
  size_t wanted_ = kFramePrefixBytes;
  bool in_text_ = false;
  uint32_t told_epoch_ = 0;
  bool lost_ = false;
};

// Dials, passes the challenge, sends one frame and reads the answer's text.
struct Answered {
  TcpStream stream;
  std::string text;
};
Result<Answered> Ask(const std::string& host, uint16_t port, const std::string& frame,
                     TimePoint deadline, const Security& security, const std::string& what) {
  ASSIGN_OR_RETURN(TcpStream stream, DialTcp(host, port, deadline));
  stream.SetOptions(kControlPeerTimeout);
  RETURN_IF_ERROR(Introduce(stream, security, ChallengePurpose::kControl, RandomEndpointId(),
                            EndpointId{}, deadline));
  RETURN_IF_ERROR(WriteAll(stream, frame, deadline, what));
  std::array<char, kFramePrefixBytes> prefix{};
  RETURN_IF_ERROR(ReadAll(stream, prefix, deadline, "answer to " + what));
  ASSIGN_OR_RETURN(const uint32_t length, FrameLength({prefix.data(), prefix.size()}));
  std::string text(length, '\0');
  RETURN_IF_ERROR(ReadAll(stream, text, deadline, "answer to " + what));
  return Answered{std::move(stream), std::move(text)};
}

Result<std::unique_ptr<ControlClient>> ConnectUntil(const std::string& host, uint16_t port,
                                                    const Hello& hello, TimePoint deadline,
                                                    const Security& security) {
  ASSIGN_OR_RETURN(Answered answered,
                   Ask(host, port, HelloFrame(hello), deadline, security, "hello"));
  ASSIGN_OR_RETURN(Welcome welcome, ParseAnswer(answered.text));
  return std::unique_ptr<ControlClient>(
      std::make_unique<SocketControlClient>(std::move(answered.stream), std::move(welcome)));
}

}  // namespace

Result<std::unique_ptr<ControlClient>> ControlClient::Connect(const std::string& host,
                                                              uint16_t port, const Hello& hello,
                                                              Nanos timeout,
                                                              const Security* security) {
  auto client = ConnectUntil(host, port, hello, Clock::Real().Now() + timeout,
                             security == nullptr ? Security() : *security);
  if (client.ok()) return client;
  return client.status().WithContext(fmt::format("memory node {}:{}", host, port));
}

Result<json::object> CallNode(const std::string& host, uint16_t port, const json::object& request,
                              Nanos timeout, const Security* security) {
  const std::string frame = AdminFrame(request);
  if (frame.size() - kFramePrefixBytes > kControlFrameBytesMax) {
    return InvalidArgument(
        fmt::format("a request of {} bytes, at most {} fit", frame.size(), kControlFrameBytesMax));
  }
  const Result<Answered> answered = Ask(host, port, frame, Clock::Real().Now() + timeout,
                                        security == nullptr ? Security() : *security, "request");
  auto reply = answered.ok() ? ParseReply(answered->text) : Result<json::object>(answered.status());
  if (reply.ok()) return reply;
  return reply.status().WithContext(fmt::format("memory node {}:{}", host, port));
}

}  // namespace engram::net
