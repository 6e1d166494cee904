#include "common/net/http_connection.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/status.hpp>
#include <cerrno>

namespace engram::net {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;

namespace {

constexpr uint64_t kDrainBytesMax = 1 << 20;

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
    if (const auto connection = connection_.lock()) connection->Send(number_, std::move(response));
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

void HttpConnection::ReadRequest() {
  parser_.emplace();
  parser_->header_limit(shared_->limits.header_bytes);
  parser_->body_limit(shared_->limits.body_bytes);
  stream_.expires_after(std::chrono::seconds(shared_->limits.idle_seconds));
  http::async_read_header(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](const Error& error, size_t) { self->OnHeader(error); });
}

bool HttpConnection::RefuseUnreadable(const Error& error) {
  if (error == http::error::header_limit || error == http::error::body_limit ||
      error == http::error::buffer_overflow) {
    Refuse(413, fmt::format("the request is too large: at most {} bytes of header and {} of body",
                            shared_->limits.header_bytes, shared_->limits.body_bytes));
    return true;
  }
  // A parse error is the peer's; anything else (closed, idle too long) needs no answer.
  if (error && error != http::error::end_of_stream && error != http::error::partial_message &&
      error.category() == http::make_error_code(http::error::end_of_stream).category()) {
    Refuse(400, fmt::format("not an HTTP request: {}", error.message()));
    return true;
  }
  if (error) Close();
  return error.failed();
}

void HttpConnection::OnHeader(const Error& error) {
  if (closed_ || RefuseUnreadable(error)) return;
  const auto read_body = [self = shared_from_this()](const Error& failed, size_t) {
    if (failed) return self->Close();
    http::async_read(self->stream_, self->buffer_, *self->parser_,
                     [self](const Error& read, size_t) { self->OnRequest(read); });
  };
  if (!boost::beast::iequals(parser_->get()[http::field::expect], "100-continue")) {
    return read_body({}, 0);
  }
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  asio::async_write(stream_, asio::buffer(kContinue), read_body);
}

void HttpConnection::OnRequest(const Error& error) {
  if (closed_ || RefuseUnreadable(error)) return;
  auto& message = parser_->get();
  keep_alive_ = message.keep_alive();
  chunked_ = message.version() >= 11;
  HttpRequest request;
  request.method = std::string(message.method_string());
  const std::string target(message.target());
  const size_t mark = target.find('?');
  request.path = target.substr(0, mark);
  if (mark != std::string::npos) request.query = target.substr(mark + 1);
  request.authorization = std::string(message[http::field::authorization]);
  request.content_type = std::string(message[http::field::content_type]);
  request.body = std::move(message.body());
  auto& all = shared_->connections;
  all.splice(all.end(), all, std::find(all.begin(), all.end(), shared_from_this()));
  ++number_;
  answering_ = true;
  ending_ = false;
  stream_.expires_never();
  WatchForClose();
  shared_->handler(std::move(request),
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

void HttpConnection::Send(uint64_t number, HttpResponse response) {
  if (closed_ || !answering_ || ending_ || number != number_) return;
  ending_ = true;
  const bool head = parser_ && parser_->get().method() == http::verb::head;
  std::string bytes =
      HeaderText(response.status, response.content_type, response.headers, response.body.size());
  if (!head) bytes += response.body;
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
  stream_.expires_after(std::chrono::seconds(shared_->limits.idle_seconds));
  asio::async_write(stream_, asio::buffer(sending_),
                    [self = shared_from_this()](const Error& error, size_t) {
                      self->writing_ = false;
                      if (self->closed_) return;
                      if (error) return self->Gone();
                      self->stream_.expires_never();
                      self->WriteMore();
                    });
}

void HttpConnection::AnswerDone() {
  answering_ = false;
  on_gone_ = nullptr;
  if (keep_alive_) return ReadRequest();
  Drain();
}

void HttpConnection::Refuse(int status, const std::string& message) {
  answering_ = true;
  ending_ = false;
  keep_alive_ = false;
  chunked_ = true;  // what version it speaks is not known
  Send(number_, shared_->refusal(status, message));
}

// Closes our side and reads what is still coming for a moment, so that the answer is not lost to
// a reset.
void HttpConnection::Drain() {
  Error ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  stream_.expires_after(std::chrono::seconds(1));
  DrainMore(0);
}

void HttpConnection::DrainMore(uint64_t so_far) {
  if (so_far > kDrainBytesMax) return Close();
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(shared_->limits.header_bytes),
                          [self = shared_from_this(), so_far](const Error& error, size_t bytes) {
                            if (error || self->closed_) return self->Close();
                            self->DrainMore(so_far + bytes);
                          });
}

}  // namespace engram::net
