// One connection of HttpService: reads a request, hands it out, writes the answer, reads the next.
// Internal to common/net; everything on the service's thread.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "common/net/http_service.h"

namespace engram::net {

class HttpConnection;
using HttpConnections = std::list<std::shared_ptr<HttpConnection>>;  // the longest idle one first

// What the connections of a service share; outlives them.
struct HttpShared {
  HttpLimits limits;
  HttpService::Handler handler;
  HttpService::Refusal refusal;
  HttpConnections connections;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(boost::asio::ip::tcp::socket socket, HttpShared* shared)
      : stream_(std::move(socket)), shared_(shared) {}

  void ReadRequest();
  // Answers without a request having been read, and closes.
  void Refuse(int status, const std::string& message);
  void Close();
  bool busy() const { return answering_; }  // a request's answer is not complete

 private:
  friend class ConnectionReply;
  using Error = boost::system::error_code;

  void OnHeader(const Error& error);
  void OnRequest(const Error& error);
  bool RefuseUnreadable(const Error& error);
  void WatchForClose();
  // Of the reply numbered `number`; ignored when it is not the current one.
  void Send(uint64_t number, HttpResponse response);
  void StartStream(uint64_t number, int status, const std::string& content_type,
                   const HttpHeaders& headers);
  bool Write(uint64_t number, std::string_view bytes);
  void Finish(uint64_t number);

  std::string HeaderText(int status, const std::string& content_type, const HttpHeaders& headers,
                         std::optional<size_t> length) const;
  void Enqueue(std::string_view bytes);
  void WriteMore();
  void AnswerDone();
  void Gone();
  void Drain();
  void DrainMore(uint64_t so_far);

  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  HttpShared* const shared_;
  uint64_t number_ = 0;  // of the request being answered
  bool answering_ = false;
  bool ending_ = false;  // all of the answer is enqueued
  bool writing_ = false;
  bool keep_alive_ = false;
  bool chunked_ = false;
  bool closed_ = false;
  std::string sending_;  // being written
  std::string unsent_;   // to be written next
  std::function<void()> on_gone_;
};

}  // namespace engram::net
