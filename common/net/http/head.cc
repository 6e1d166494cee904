#include "common/net/http/head.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <charconv>
#include <optional>

namespace engram::net {
namespace {

namespace http = boost::beast::http;
using Parser = http::request_parser<http::empty_body>;
using boost::beast::iequals;

bool IsAlnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// uri-host [":" port], as far as its characters tell.
bool MayBeHost(std::string_view host) {
  return std::all_of(host.begin(), host.end(), [](char c) {
    return IsAlnum(c) || std::string_view("-._~:[]%!$&'()*+;=").find(c) != std::string_view::npos;
  });
}

// nullopt for a "%" without two digits, and for control characters.
std::optional<std::string> PercentDecoded(std::string_view text) {
  std::string decoded;
  for (size_t at = 0; at < text.size(); ++at) {
    char c = text[at];
    if (c == '%') {
      if (at + 2 >= text.size()) return std::nullopt;
      unsigned value = 0;
      const char* const end = text.data() + at + 3;
      if (std::from_chars(text.data() + at + 1, end, value, 16).ptr != end) return std::nullopt;
      c = static_cast<char>(value);
      at += 2;
    }
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return std::nullopt;
    decoded.push_back(c);
  }
  return decoded;
}

// "http://host/path" is how a proxy asks; its host counts as the Host field's, which must be there
// all the same.
std::string_view WithoutAuthority(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.size() < scheme.size() || !iequals(target.substr(0, scheme.size()), scheme)) {
      continue;
    }
    const size_t path = target.find_first_of("/?", scheme.size());
    return path == std::string_view::npos ? std::string_view("/") : target.substr(path);
  }
  return target;
}

std::optional<HttpFault> ReadTarget(std::string_view target, HttpRequest& request) {
  const std::string_view origin = WithoutAuthority(target);
  const size_t mark = origin.find('?');
  if (mark != std::string_view::npos) request.query = std::string(origin.substr(mark + 1));
  std::optional<std::string> path = PercentDecoded(origin.substr(0, mark));
  if (!path) return HttpFault{400, "the path has a bad escape or a control character"};
  request.path = path->empty() ? "/" : std::move(*path);
  return std::nullopt;
}

// One length or one coding that we know, or none of either.
std::optional<HttpFault> ReadFraming(const Parser::value_type& message, HttpHead& head) {
  const size_t codings = message.count(http::field::transfer_encoding);
  const size_t lengths = message.count(http::field::content_length);
  if (codings > 0) {
    const std::string_view coding(message[http::field::transfer_encoding]);
    if (!head.is_1_1 || codings > 1 || lengths > 0 || !iequals(coding, "chunked")) {
      return HttpFault{400,
                       "Transfer-Encoding may only be \"chunked\", once, without Content-Length, "
                       "in HTTP/1.1"};
    }
    head.chunked = true;
    return std::nullopt;
  }
  if (lengths == 0) return std::nullopt;
  const std::string_view length(message[http::field::content_length]);
  const char* const end = length.data() + length.size();
  const auto [stopped, error] = std::from_chars(length.data(), end, head.length);
  if (lengths > 1 || length.empty() || stopped != end || error != std::errc()) {
    return HttpFault{400, "Content-Length must be one number"};
  }
  return std::nullopt;
}

}  // namespace

size_t FindHeadEnd(std::string_view text, size_t from) {
  constexpr std::string_view kEnd = "\r\n\r\n";
  const size_t found = text.find(kEnd, from < kEnd.size() ? 0 : from - kEnd.size() + 1);
  return found == std::string_view::npos ? found : found + kEnd.size();
}

bool MayBeHead(std::string_view text, size_t from) {
  for (size_t at = from; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\n' && (at == 0 || text[at - 1] != '\r')) return false;
    if (c == '\r' && at + 1 < text.size() && text[at + 1] != '\n') return false;
    if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r' && c != '\t') return false;
  }
  return true;
}

std::variant<HttpHead, HttpFault> ParseHttpHead(std::string_view text) {
  if (!MayBeHead(text, 0)) return HttpFault{400, "not an HTTP request: bytes that no header has"};
  if (text.find("\r\n ") != std::string_view::npos ||
      text.find("\r\n\t") != std::string_view::npos) {
    return HttpFault{400, "not an HTTP request: a field that is folded over lines"};
  }
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(text.size() + 1));
  parser.body_limit(boost::none);
  boost::system::error_code error;
  parser.put(boost::asio::buffer(text.data(), text.size()), error);
  if (error || !parser.is_header_done()) {
    return HttpFault{400, fmt::format("not an HTTP request: {}",
                                      error ? error.message() : "the header is not complete")};
  }
  const auto& message = parser.get();
  HttpHead head;
  head.is_1_1 = message.version() >= 11;
  head.keep_alive = parser.keep_alive();
  head.awaits_continue = head.is_1_1 && iequals(message[http::field::expect], "100-continue");
  const size_t hosts = message.count(http::field::host);
  head.request.host = std::string(message[http::field::host]);
  if (hosts > 1 || (head.is_1_1 && hosts == 0) || !MayBeHost(head.request.host)) {
    return HttpFault{400, "a request needs exactly one Host, which is a host's name"};
  }
  if (auto fault = ReadFraming(message, head)) return *fault;
  if (auto fault = ReadTarget(std::string_view(message.target()), head.request)) return *fault;
  head.request.method = std::string(message.method_string());
  head.request.origin = std::string(message[http::field::origin]);
  head.request.authorization = std::string(message[http::field::authorization]);
  head.request.content_type = std::string(message[http::field::content_type]);
  head.request.content_encoding = std::string(message[http::field::content_encoding]);
  head.request.has_body = head.has_body();
  return head;
}

}  // namespace engram::net
