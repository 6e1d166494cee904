#include "common/net/listen.h"

#include <fmt/format.h>

#include <boost/asio/ip/v6_only.hpp>

namespace engram::net {

using boost::asio::ip::tcp;

Status Listen(tcp::acceptor& acceptor, const std::string& host, uint16_t port,
              std::string_view what) {
  const auto failed = [&](std::string_view step, const boost::system::error_code& error) {
    return Unavailable(fmt::format("cannot listen for {} on {}:{}: {}: {}", what, host, port, step,
                                   error.message()));
  };
  boost::system::error_code error;
  tcp::resolver resolver(acceptor.get_executor());
  const auto found = resolver.resolve(
      host, std::to_string(port), tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) return failed("the host is not known", error);
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), error);
  if (error) return failed("no socket", error);
  acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (error) return failed("socket option", error);
  acceptor.bind(endpoint, error);
  // With address reuse another listener shows itself only in listen(), or in bind() when it does
  // not reuse.
  if (!error) acceptor.listen(boost::asio::socket_base::max_listen_connections, error);
  if (error == boost::asio::error::address_in_use) {
    return AlreadyExists(
        fmt::format("cannot listen for {} on {}:{}: the port is in use; stop the "
                    "program that holds it or choose another port",
                    what, host, port));
  }
  if (error) return failed("bind", error);
  return OkStatus();
}

}  // namespace engram::net
