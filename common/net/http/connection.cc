#include "common/net/http/connection.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/status.hpp>
#include <cerrno>

namespace engram::net {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

namespace {

constexpr uint64_t kDrainBytesMin = 1 << 20;
constexpr uint64_t kAnswerBytesKept = 1 << 16;
constexpr auto kDrainTime = std::chrono::seconds(2);
constexpr Nanos kStallMax = std::chrono::seconds(1);
// A connection younger than this gives way last: its request is on its way.
constexpr Nanos kArrivalMax = std::chrono::milliseconds(250);

bool IsVital(const HttpRequest& request) {
  return (request.method == "GET" || request.method == "HEAD") &&
         std::ranges::find(kVitalPaths, request.path) != std::end(kVitalPaths);
}

std::string ReasonOf(int status) {
  return std::string(http::obsolete_reason(static_cast<http::status>(status)));
}

}  // namespace

// Ties an answer to the request it was asked for.
class ConnectionReply : public HttpReply {
 public:
  ConnectionReply(std::weak_ptr<HttpConnection> connection, uint64_t number)
      : connection_(std::move(connection)), number_(number) {}
  ~ConnectionReply() override {
    if (answered_) return;
    const auto connection = connection_.lock();
    if (!connection || gone()) return;
    if (started_) {
      connection->Close();  // anything sent would look like a part of it
    } else {
      connection->Send(number_, connection->shared_->refusal(500, "no answer was made"));
    }
  }
  void Send(HttpResponse response) override {
    answered_ = true;
    if (const auto connection = connection_.lock()) connection->Send(number_, response);
  }
  void StartStream(int status, const std::string& content_type,
                   const HttpHeaders& headers) override {
    started_ = true;
    if (const auto connection = connection_.lock()) {
      connection->StartStream(number_, status, content_type, headers);
    }
  }
  bool Write(std::string_view bytes) override {
    const auto connection = connection_.lock();
    return connection && connection->Write(number_, bytes);
  }
  void Finish() override {
    answered_ = true;
    if (const auto connection = connection_.lock()) connection->Finish(number_);
  }
  bool gone() const override {
    const auto connection = connection_.lock();
    return !connection || connection->closed_ || connection->number_ != number_;
  }
  void OnGone(std::function<void()> callback) override {
    if (gone()) return callback();
    connection_.lock()->on_gone_ = std::move(callback);
  }

 private:
  const std::weak_ptr<HttpConnection> connection_;
  const uint64_t number_;
  bool answered_ = false;
  bool started_ = false;
};

HttpConnection::HttpConnection(tcp::socket socket, HttpShared* shared, PeerAddress address,
                               bool reserved)
    : stream_(std::move(socket)),
      shared_(shared),
      address_(address),
      reserved_(reserved),
      arrived_at_(shared->clock.Now()),
      moved_at_(arrived_at_) {}

Occupant HttpConnection::occupant(TimePoint now) const {
  constexpr int kBetween = 0, kInHeader = 1, kStalled = 2, kArriving = 3, kWorks = -1;
  Occupant self{address_, kWorks, moved_at_};
  if (draining_) {
    self.rank = kBetween;
  } else if (!answering_ && !body_) {
    // Else a newcomer would be the only one that waits beside busy clients, and would give way.
    self.rank = now - arrived_at_ < kArrivalMax ? kArriving
                : buffer_.empty()               ? kBetween
                                                : kInHeader;
  } else if ((body_ || writing_) && now - moved_at_ > kStallMax) {
    self.rank = kStalled;
  }
  return self;
}

void HttpConnection::ReadRequest() {
  searched_ = 0;
  skipped_ = 0;
  is_head_ = false;
  stream_.expires_after(std::chrono::seconds(shared_->limits.idle_seconds));
  Advance();
}

void HttpConnection::ReadMore() {
  const size_t before = buffer_.size();
  buffer_.resize(shared_->limits.header_bytes);
  stream_.async_read_some(asio::buffer(buffer_.data() + before, buffer_.size() - before),
                          [self = shared_from_this(), before](const Error& error, size_t bytes) {
                            self->buffer_.resize(before + bytes);
                            if (self->closed_) return;
                            if (error) return self->Close();  // closed, or idle for too long
                            self->moved_at_ = self->shared_->clock.Now();
                            self->Advance();
                          });
}

void HttpConnection::Advance() {
  if (body_) return ReadBody();
  if (!SkipEmptyLines()) return Refuse(400, "not an HTTP request: too many empty lines");
  const size_t end = FindHeadEnd(buffer_, searched_);
  if (end != std::string::npos) {
    const std::string text = buffer_.substr(0, end);
    buffer_.erase(0, end);
    return OnHead(text);
  }
  if (!MayBeHead(buffer_, searched_)) {
    return Refuse(400, "not an HTTP request: bytes that no header has");
  }
  if (buffer_.size() >= shared_->limits.header_bytes) {
    return Refuse(431, fmt::format("the request's header is too large: at most {} bytes",
                                   shared_->limits.header_bytes));
  }
  // The last byte may begin the end, and is searched again with what follows it.
  searched_ = buffer_.empty() ? 0 : buffer_.size() - 1;
  ReadMore();
}

// Empty lines before a request are no part of it (RFC 9112, 2.2). False beyond a header's size.
bool HttpConnection::SkipEmptyLines() {
  size_t skipped = 0;
  while (std::string_view(buffer_).substr(skipped).starts_with("\r\n")) skipped += 2;
  buffer_.erase(0, skipped);
  skipped_ += skipped;
  return skipped_ <= shared_->limits.header_bytes;
}

void HttpConnection::OnHead(std::string_view text) {
  auto parsed = ParseHttpHead(text);
  if (const auto* fault = std::get_if<HttpFault>(&parsed)) {
    return Refuse(fault->status, fault->message);
  }
  head_ = std::move(std::get<HttpHead>(parsed));
  keep_alive_ = head_.keep_alive && !reserved_;
  chunked_ = head_.is_1_1;
  is_head_ = head_.request.method == "HEAD";
  if (reserved_ && !IsVital(head_.request)) {
    return Refuse(503, "too many connections are open; try again later");
  }
  if (shared_->admit) {
    if (auto refused = shared_->admit(head_.request)) {
      if (head_.has_body()) return Refuse(*refused);
      StartAnswer();
      return Send(number_, *refused);
    }
  }
  if (head_.length > shared_->limits.body_bytes) return OnBodyStep(HttpBody::Step::kTooLarge);
  body_ = head_.chunked ? HttpBody::InChunks(shared_->limits.body_bytes)
                        : HttpBody::OfLength(head_.length);
  if (!head_.awaits_continue || !head_.has_body()) return ReadBody();
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  asio::async_write(stream_, asio::buffer(kContinue),
                    [self = shared_from_this()](const Error& error, size_t) {
                      if (self->closed_) return;
                      error ? self->Close() : self->ReadBody();
                    });
}

void HttpConnection::ReadBody() {
  std::string_view bytes = buffer_;
  const HttpBody::Step step = body_->Take(bytes);
  buffer_.erase(0, buffer_.size() - bytes.size());
  OnBodyStep(step);
}

void HttpConnection::OnBodyStep(HttpBody::Step step) {
  switch (step) {
    case HttpBody::Step::kMore:
      return KeepBody() ? ReadMore()
                        : Refuse(429, "too many large requests are being read; try again later");
    case HttpBody::Step::kTooLarge:
      return Refuse(413,
                    fmt::format("the request's body is too large: at most {} bytes, with {} of "
                                "a chunk's line and {} of trailers",
                                shared_->limits.body_bytes, HttpBody::kChunkLineBytesMax,
                                HttpBody::kTrailersBytesMax));
    case HttpBody::Step::kMalformed:
      return Refuse(400, "not an HTTP request: its chunks are malformed");
    case HttpBody::Step::kDone:
      head_.request.body = body_->TakeContent();
      ReleaseBody();
      return AwaitTurn();
  }
}

// False when the bodies being read take too much memory together.
bool HttpConnection::KeepBody() {
  const uint64_t kept = body_->content().capacity();
  shared_->bodies_bytes += kept - body_kept_;
  body_kept_ = kept;
  return shared_->bodies_bytes <= shared_->limits.bodies_bytes;
}

void HttpConnection::ReleaseBody() {
  body_.reset();
  const uint64_t kept = std::exchange(body_kept_, 0);
  shared_->bodies_bytes -= kept;
  if (kept > 0 && shared_->released) shared_->released(kept);
}

void HttpConnection::StartAnswer() {
  ++number_;
  answering_ = true;
  ending_ = false;
}

// Each round of the loop hands out one request, so that a flood of requests delays other reading,
// writing and accepting by one request at a time. Vital requests are handed out at once.
void HttpConnection::AwaitTurn() {
  StartAnswer();
  stream_.expires_never();
  WatchForClose();
  if (IsVital(head_.request)) return HandOut();
  shared_->turns.push_back(shared_from_this());
  if (shared_->turns.size() == 1) PostTurn();
}

void HttpConnection::PostTurn() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] {
    std::deque<std::shared_ptr<HttpConnection>>& turns = self->shared_->turns;
    const std::shared_ptr<HttpConnection> next = turns.front();
    turns.pop_front();
    if (!turns.empty()) turns.front()->PostTurn();
    if (!next->closed_) next->HandOut();
  });
}

void HttpConnection::HandOut() {
  shared_->handler(std::move(head_.request),
                   std::make_shared<ConnectionReply>(weak_from_this(), number_));
}

void HttpConnection::WatchForClose() {
  stream_.socket().async_wait(
      tcp::socket::wait_read, [self = shared_from_this(), number = number_](const Error& error) {
        if (error || self->closed_ || !self->answering_ || self->number_ != number) return;
        char byte = 0;
        const ssize_t got =
            recv(self->stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        // More bytes are the next request: it waits its turn, and a close behind it shows when
        // writing fails.
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) self->Gone();
      });
}

void HttpConnection::Gone() {
  Close();  // calls on_gone_
}

void HttpConnection::Close() {
  if (closed_) return;
  closed_ = true;
  ReleaseBody();
  stream_.close();
  shared_->connections.remove(shared_from_this());
  const auto on_gone = std::exchange(on_gone_, nullptr);
  if (answering_ && on_gone) on_gone();
  answering_ = false;
}

std::string HttpConnection::HeaderText(int status, const std::string& content_type,
                                       const HttpHeaders& headers,
                                       std::optional<size_t> length) const {
  std::string text = fmt::format("HTTP/1.{} {} {}\r\nContent-Type: {}\r\n", chunked_ ? 1 : 0,
                                 status, ReasonOf(status), content_type);
  for (const auto& [name, value] : headers) text += fmt::format("{}: {}\r\n", name, value);
  if (length) {
    text += fmt::format("Content-Length: {}\r\n", *length);
  } else if (chunked_) {
    text += "Transfer-Encoding: chunked\r\n";
  }
  text += keep_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return text;
}

void HttpConnection::Send(uint64_t number, const HttpResponse& response) {
  if (closed_ || !answering_ || ending_ || number != number_) return;
  ending_ = true;
  std::string bytes =
      HeaderText(response.status, response.content_type, response.headers, response.body.size());
  if (!is_head_) bytes += response.body;
  Enqueue(bytes);
}

void HttpConnection::StartStream(uint64_t number, int status, const std::string& content_type,
                                 const HttpHeaders& headers) {
  if (closed_ || !answering_ || ending_ || number != number_) return;
  if (!chunked_) keep_alive_ = false;  // its end is the connection's
  Enqueue(HeaderText(status, content_type, headers, std::nullopt));
}

bool HttpConnection::Write(uint64_t number, std::string_view bytes) {
  if (closed_ || !answering_ || ending_ || number != number_) return false;
  if (static_cast<int64_t>(unsent_.size() + bytes.size()) > shared_->limits.unsent_bytes) {
    Gone();  // it does not read
    return false;
  }
  if (bytes.empty()) return true;  // an empty chunk would be the end
  Enqueue(chunked_ ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes) : std::string(bytes));
  return !closed_;
}

void HttpConnection::Finish(uint64_t number) {
  if (closed_ || !answering_ || ending_ || number != number_) return;
  ending_ = true;
  Enqueue(chunked_ ? "0\r\n\r\n" : "");
}

void HttpConnection::Enqueue(std::string_view bytes) {
  unsent_ += bytes;
  if (!writing_) WriteMore();
}

void HttpConnection::WriteMore() {
  if (unsent_.empty()) {
    if (ending_) AnswerDone();
    return;
  }
  writing_ = true;
  sending_ = std::exchange(unsent_, {});
  moved_at_ = shared_->clock.Now();
  stream_.expires_after(std::chrono::seconds(shared_->limits.idle_seconds));
  asio::async_write(stream_, asio::buffer(sending_),
                    [self = shared_from_this()](const Error& error, size_t) {
                      self->writing_ = false;
                      self->moved_at_ = self->shared_->clock.Now();
                      if (self->closed_) return;
                      if (error) return self->Gone();
                      self->stream_.expires_never();
                      self->WriteMore();
                    });
}

void HttpConnection::AnswerDone() {
  answering_ = false;
  ReleaseAnswer();
  on_gone_ = nullptr;
  if (keep_alive_) return ReadRequest();
  Drain();
}

// A connection that waits for its next request does not keep what a large answer took.
void HttpConnection::ReleaseAnswer() {
  const uint64_t kept = sending_.capacity() + unsent_.capacity();
  if (kept < kAnswerBytesKept) return;
  std::string().swap(sending_);
  std::string().swap(unsent_);
  if (shared_->released) shared_->released(kept);
}

void HttpConnection::Refuse(int status, const std::string& message) {
  Refuse(shared_->refusal(status, message));
}

void HttpConnection::Refuse(const HttpResponse& response) {
  ReleaseBody();
  StartAnswer();
  keep_alive_ = false;
  chunked_ = true;  // what version it speaks may not be known
  Send(number_, response);
}

// Closes our side and reads what is still coming for a moment, so that the answer is not lost to
// a reset.
void HttpConnection::Drain() {
  draining_ = true;
  Error ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  stream_.expires_after(kDrainTime);
  DrainMore(0);
}

void HttpConnection::DrainMore(uint64_t so_far) {
  if (so_far > std::max(kDrainBytesMin, shared_->limits.body_bytes)) return Close();
  buffer_.resize(shared_->limits.header_bytes);
  stream_.async_read_some(asio::buffer(buffer_),
                          [self = shared_from_this(), so_far](const Error& error, size_t bytes) {
                            if (error || self->closed_) return self->Close();
                            self->DrainMore(so_far + bytes);
                          });
}

}  // namespace engram::net
