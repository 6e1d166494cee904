#include "common/net/http/exchange.h"

#include <fmt/format.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <functional>
#include <optional>
#include <utility>

#include "common/io/host_port.h"
#include "common/net/http/look_up.h"

namespace engram::net {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace ssl = boost::asio::ssl;
using boost::asio::ip::tcp;
using boost::system::error_code;

class HttpTls {
 public:
  // Only read once it is loaded; OpenSSL counts its users by itself.
  mutable ssl::context context{ssl::context::tls_client};
};

Result<std::shared_ptr<const HttpTls>> LoadHttpTls(const HttpTlsFiles& files) {
  const auto tls = std::make_shared<HttpTls>();
  ssl::context& context = tls->context;
  error_code error;
  const auto failed = [&](std::string_view what, const std::string& file) {
    return InvalidArgument(
        fmt::format("TLS: {} {}, which must be readable PEM: {}", what, file, error.message()));
  };
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  context.set_verify_mode(ssl::verify_peer, error);
  // A key behind a passphrase is an error, not a question on the terminal.
  context.set_password_callback([](size_t, auto) { return std::string(); }, error);
  if (files.ca.empty()) {
    context.set_default_verify_paths(error);
  } else if (context.load_verify_file(files.ca, error); error) {
    return failed("CA file", files.ca);
  }
  if (files.certificate.empty()) return std::shared_ptr<const HttpTls>(tls);
  if (context.use_certificate_chain_file(files.certificate, error); error) {
    return failed("certificate file", files.certificate);
  }
  if (context.use_private_key_file(files.key, ssl::context::pem, error); error) {
    return failed(fmt::format("key file (of certificate {})", files.certificate), files.key);
  }
  return std::shared_ptr<const HttpTls>(tls);
}

namespace {

constexpr size_t kPieceBytes = 16 * 1024;

// What differs between plain and TLS is how to begin.
error_code Greet(tcp::socket&, const std::string&, const std::function<void()>& none,
                 const std::function<void(error_code)>&) {
  none();
  return {};
}
error_code Greet(ssl::stream<tcp::socket>& stream, const std::string& host,
                 const std::function<void()>&, const std::function<void(error_code)>& done) {
  error_code error;
  stream.set_verify_callback(ssl::host_name_verification(host), error);
  error_code no_number;
  asio::ip::make_address(host, no_number);
  if (no_number) SSL_set_tlsext_host_name(stream.native_handle(), host.c_str());
  if (!error) stream.async_handshake(ssl::stream_base::client, done);
  return error;
}

std::string Explain(tcp::socket&, error_code error) { return error.message(); }
std::string Explain(ssl::stream<tcp::socket>& stream, error_code error) {
  const long verified = SSL_get_verify_result(stream.native_handle());
  if (verified == X509_V_OK) return error.message();
  return fmt::format("{} ({})", error.message(), X509_verify_cert_error_string(verified));
}

template <typename Stream>
class Exchange final : public HttpExchange {
 public:
  template <typename... Context>
  explicit Exchange(HttpDial dial, Context&... context)
      : dial_(std::move(dial)),
        deadline_(std::chrono::steady_clock::now() + dial_.timeout),
        stream_(loop_, context...) {
    parser_.body_limit(boost::none);  // Body and Piece have bounds of their own
    on_stop_.emplace(dial_.stop, [this] { asio::post(loop_, [this] { Close(); }); });
  }

  // What is under way ends before what it uses.
  ~Exchange() override {
    on_stop_.reset();
    Abandon();
  }

  Status Connect() {
    ASSIGN_OR_RETURN(const io::HostPort to, io::ParseHostPort(dial_.address));
    const auto found = LookUp(to, deadline_, dial_.stop);
    if (!found.ok()) {
      step_ = "looking up the host";
      if (found.status().code() == Code::kDeadlineExceeded) return Late();
      return found.status().WithContext(step_);
    }
    RETURN_IF_ERROR(Run("connecting", [&] {
      asio::async_connect(Socket(), *found,
                          [this](error_code error, const tcp::endpoint&) { Done(error); });
    }));
    error_code ignored;
    Socket().set_option(tcp::no_delay(true), ignored);
    return Run("TLS handshake", [&] {
      const error_code error = Greet(
          stream_, to.host, [this] { Done({}); }, [this](error_code done) { Done(done); });
      if (error) Done(error);
    });
  }

  Result<HttpResponse> Ask(const HttpQuestion& question) override {
    http::request<http::string_body> request(http::string_to_verb(question.method), question.path,
                                             11);
    request.set(http::field::host, dial_.address);
    request.set(http::field::connection, "close");
    for (const auto& [name, value] : question.headers) request.set(name, value);
    if (!question.body.empty()) {
      request.body() = question.body;
      request.prepare_payload();
    }
    const auto done = [this](error_code error, size_t) { Done(error); };
    RETURN_IF_ERROR(Run("sending the request", [&] { http::async_write(stream_, request, done); }));
    RETURN_IF_ERROR(Run("reading the answer",
                        [&] { http::async_read_header(stream_, buffer_, parser_, done); }));
    const auto& head = parser_.get();
    return HttpResponse{static_cast<int>(head.result_int()), head[http::field::content_type], ""};
  }

  Result<std::string> Body(uint64_t bytes_max) override {
    std::string body;
    while (true) {
      const uint64_t announced = parser_.content_length().value_or(0);
      if (announced > bytes_max || body.size() > bytes_max) {
        Close();
        return ResourceExhausted(fmt::format("{}: it has more than {} bytes", step_, bytes_max));
      }
      if (parser_.is_done()) return body;
      RETURN_IF_ERROR(Run("reading the answer", [&] { StartPiece(); }));
      body.append(piece_.data(), PieceBytes());
    }
  }

  Result<std::string> Piece(Nanos wait) override {
    deadline_ = std::chrono::steady_clock::now() + wait;
    step_ = "reading the answer";
    while (true) {
      if (!under_way_ && parser_.is_done()) return Unavailable("the server ended its answer");
      if (!under_way_) Start([&] { StartPiece(); });
      RunUntil(deadline_);
      if (dial_.stop.stop_requested()) return Stopped();
      if (under_way_) return std::string();
      if (error_) return Failed();
      if (const size_t bytes = PieceBytes(); bytes > 0) return std::string(piece_.data(), bytes);
    }
  }

 private:
  tcp::socket& Socket() { return beast::get_lowest_layer(stream_); }

  void Close() {
    error_code ignored;
    Socket().close(ignored);
  }

  void Abandon() {
    Close();
    loop_.restart();
    while (under_way_ && loop_.run_one() > 0) {
    }
  }

  void StartPiece() {
    auto& body = parser_.get().body();
    body.data = piece_.data();
    body.size = piece_.size();
    body.more = true;
    http::async_read_some(stream_, buffer_, parser_, [this](error_code error, size_t) {
      Done(error == http::error::need_buffer ? error_code() : error);
    });
  }
  size_t PieceBytes() { return piece_.size() - parser_.get().body().size; }

  template <typename Operation>
  void Start(const Operation& operation) {
    under_way_ = true;
    error_ = {};
    operation();
  }
  void Done(error_code error) {
    under_way_ = false;
    error_ = error;
  }
  void RunUntil(TimePoint until) {
    loop_.restart();
    while (under_way_ && loop_.run_one_until(until) > 0) {
    }
  }

  template <typename Operation>
  Status Run(const char* step, const Operation& operation) {
    step_ = step;
    Start(operation);
    RunUntil(deadline_);
    const bool late = under_way_;
    if (late) Abandon();
    if (dial_.stop.stop_requested()) return Stopped();
    if (late) return Late();
    return error_ ? Failed() : OkStatus();
  }

  Status Failed() { return Unavailable(fmt::format("{}: {}", step_, Explain(stream_, error_))); }
  Status Stopped() const { return Cancelled(fmt::format("{}: stopped", step_)); }
  Status Late() const {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(dial_.timeout).count();
    return DeadlineExceeded(fmt::format("{}: not done within {} ms", step_, ms));
  }

  const HttpDial dial_;
  TimePoint deadline_;
  asio::io_context loop_{1};
  Stream stream_;
  beast::flat_buffer buffer_;
  http::response_parser<http::buffer_body> parser_;
  std::array<char, kPieceBytes> piece_;
  const char* step_ = "connecting";
  bool under_way_ = false;
  error_code error_;
  // Last: gone before what it posts to.
  std::optional<std::stop_callback<std::function<void()>>> on_stop_;
};

template <typename Stream, typename... Context>
Result<std::unique_ptr<HttpExchange>> Opened(HttpDial dial, Context&... context) {
  auto exchange = std::make_unique<Exchange<Stream>>(std::move(dial), context...);
  RETURN_IF_ERROR(exchange->Connect());
  return std::unique_ptr<HttpExchange>(std::move(exchange));
}

}  // namespace

Result<std::unique_ptr<HttpExchange>> HttpExchange::Open(HttpDial dial) try {
  if (dial.tls == nullptr) return Opened<tcp::socket>(std::move(dial));
  const std::shared_ptr<const HttpTls> tls = dial.tls;
  return Opened<ssl::stream<tcp::socket>>(std::move(dial), tls->context);
} catch (const boost::system::system_error& error) {  // no descriptor for the loop
  return Unavailable(fmt::format("connecting: {}", error.code().message()));
}

}  // namespace engram::net
