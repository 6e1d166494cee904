// One connection of HttpService: reads a request, hands it out, writes the answer, reads the next.
// What it keeps of a client's bytes is bounded: a header's worth, and the content of one body.
// Internal to common/net; everything on the service's thread.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "common/net/http/body.h"
#include "common/net/http/head.h"
#include "common/net/http/service.h"
#include "common/net/room.h"

namespace engram::net {

class HttpConnection;
using HttpConnections = std::list<std::shared_ptr<HttpConnection>>;

// What the connections of a service share; outlives them.
struct HttpShared {
  HttpLimits limits;
  HttpService::Handler handler;
  HttpService::Refusal refusal;
  HttpService::Admit admit = nullptr;
  HttpConnections connections = {};
  std::deque<std::shared_ptr<HttpConnection>> turns = {};  // requests to be handed out
  uint64_t bodies_bytes = 0;                               // kept of bodies that are being read
  std::function<void(uint64_t bytes)> released = nullptr;  // of bodies and answers
  const Clock& clock = Clock::Real();
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // `reserved`: beyond the limit of connections, for one request of a vital path.
  HttpConnection(boost::asio::ip::tcp::socket socket, HttpShared* shared, PeerAddress address = {},
                 bool reserved = false);

  void ReadRequest();
  void Close();
  bool busy() const { return answering_; }  // a request's answer is not complete
  bool reserved() const { return reserved_; }
  // Gives way first between requests, then while a header is coming, then when its client neither
  // sends nor takes bytes; never while its request is being answered.
  Occupant occupant(TimePoint now) const;

 private:
  friend class ConnectionReply;
  using Error = boost::system::error_code;

  void ReadMore();
  void Advance();
  bool SkipEmptyLines();
  void OnHead(std::string_view text);
  void ReadBody();
  void OnBodyStep(HttpBody::Step step);
  bool KeepBody();
  void ReleaseBody();
  void StartAnswer();
  void AwaitTurn();
  void PostTurn();
  void HandOut();
  void WatchForClose();
  // Answers a request that is not read to its end, and closes.
  void Refuse(int status, const std::string& message);
  void Refuse(const HttpResponse& response);
  // Of the reply numbered `number`; ignored when it is not the current one.
  void Send(uint64_t number, const HttpResponse& response);
  void StartStream(uint64_t number, int status, const std::string& content_type,
                   const HttpHeaders& headers);
  bool Write(uint64_t number, std::string_view bytes);
  void Finish(uint64_t number);

  std::string HeaderText(int status, const std::string& content_type, const HttpHeaders& headers,
                         std::optional<size_t> length) const;
  void Enqueue(std::string_view bytes);
  void WriteMore();
  void AnswerDone();
  void ReleaseAnswer();
  void Gone();
  void Drain();
  void DrainMore(uint64_t so_far);

  boost::beast::tcp_stream stream_;
  HttpShared* const shared_;
  const PeerAddress address_;
  const bool reserved_;
  const TimePoint arrived_at_;
  std::string buffer_;            // received and not taken: at most limits.header_bytes
  size_t searched_ = 0;           // of it, for the header's end
  size_t skipped_ = 0;            // bytes of empty lines before it
  HttpHead head_;                 // of the current request
  std::optional<HttpBody> body_;  // while it is being read
  uint64_t body_kept_ = 0;        // bytes of it, as in shared_->bodies_bytes
  TimePoint moved_at_;            // when bytes last came or went
  uint64_t number_ = 0;           // of the request being answered
  bool answering_ = false;
  bool ending_ = false;  // all of the answer is enqueued
  bool writing_ = false;
  bool keep_alive_ = false;
  bool chunked_ = false;  // the answer may be
  bool is_head_ = false;  // the request's method is HEAD
  bool draining_ = false;
  bool closed_ = false;
  std::string sending_;  // being written
  std::string unsent_;   // to be written next
  std::function<void()> on_gone_;
};

}  // namespace engram::net
