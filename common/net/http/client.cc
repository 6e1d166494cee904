#include "common/net/http/client.h"

#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include "common/io/host_port.h"

namespace engram::net {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

Result<HttpResponse> HttpGet(const std::string& address, const std::string& path, Nanos timeout,
                             uint64_t body_bytes_max) try {
  ASSIGN_OR_RETURN(const io::HostPort to, io::ParseHostPort(address));
  http::request<http::empty_body> request(http::verb::get, path, 11);
  request.set(http::field::host, address);
  request.set(http::field::connection, "close");
  http::response_parser<http::string_body> answer;
  answer.body_limit(body_bytes_max);

  asio::io_context loop(1);
  beast::tcp_stream stream(loop);
  beast::flat_buffer buffer;
  error_code error;
  std::string step = "looking up the host";
  const auto found = asio::ip::tcp::resolver(loop).resolve(to.host, std::to_string(to.port), error);
  const auto done = [&](error_code result, const auto&) { error = result; };
  const auto run = [&](const char* name, const auto& start) {
    if (error) return;
    step = name;
    start();
    loop.restart();
    loop.run();
  };
  stream.expires_after(timeout);  // for all steps together
  run("connecting", [&] { stream.async_connect(found, done); });
  run("sending the request", [&] { http::async_write(stream, request, done); });
  run("reading the answer", [&] { http::async_read(stream, buffer, answer, done); });

  auto& message = answer.get();
  if (!error) {
    return HttpResponse{static_cast<int>(message.result_int()), message[http::field::content_type],
                        std::move(message.body())};
  }
  const std::string tried = fmt::format("GET http://{}{}: {}", address, path, step);
  if (error == beast::error::timeout) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count();
    return DeadlineExceeded(fmt::format("{}: not done within {} ms", tried, ms));
  }
  if (error == http::error::body_limit) {
    return ResourceExhausted(fmt::format("{}: it has more than {} bytes", tried, body_bytes_max));
  }
  return Unavailable(fmt::format("{}: {}", tried, error.message()));
} catch (const boost::system::system_error& error) {  // no descriptor for the loop
  return Unavailable(fmt::format("GET http://{}{}: {}", address, path, error.code().message()));
}

}  // namespace engram::net
