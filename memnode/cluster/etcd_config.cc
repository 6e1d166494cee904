#include "memnode/cluster/etcd_config.h"

#include <fmt/format.h>

#include <string_view>

#include "common/io/host_port.h"

namespace engram::memnode {
namespace {

constexpr std::string_view kPlainScheme = "http://";
constexpr std::string_view kTlsScheme = "https://";

bool HasTlsFiles(const EtcdConfig& config) {
  return !config.ca_file.empty() || !config.cert_file.empty();
}

Result<EtcdEndpoint> ParseEndpoint(const EtcdConfig& config, const std::string& text) {
  EtcdEndpoint endpoint = {text, HasTlsFiles(config)};
  if (text.starts_with(kTlsScheme)) {
    endpoint = {text.substr(kTlsScheme.size()), true};
  } else if (text.starts_with(kPlainScheme)) {
    endpoint = {text.substr(kPlainScheme.size()), false};
    if (HasTlsFiles(config)) {
      return InvalidArgument(fmt::format(
          "etcd.endpoints has \"{}\", but etcd.ca_file or etcd.cert_file ask for TLS: write "
          "https://{}",
          text, endpoint.address));
    }
  }
  const auto parsed = io::ParseHostPort(endpoint.address);
  if (parsed.ok() && parsed->port != 0) return endpoint;
  return InvalidArgument(
      fmt::format("etcd.endpoints has \"{}\", expected host:port, http://host:port or "
                  "https://host:port",
                  text));
}

Status BothOrNone(std::string_view a_key, const std::string& a, std::string_view b_key,
                  const std::string& b) {
  if (a.empty() == b.empty()) return OkStatus();
  return InvalidArgument(fmt::format("{} is set and {} is not: set both or none",
                                     a.empty() ? b_key : a_key, a.empty() ? a_key : b_key));
}

}  // namespace

void EtcdConfig::Describe(config::Fields& f) {
  f.Add("etcd.endpoints", &endpoints,
        "host:port or https://host:port of each server of an etcd (3.4 or newer) that keeps the "
        "cluster's state; empty: each member keeps its own copy");
  f.Add("etcd.prefix", &prefix, "of the cluster's keys there; each cluster has its own");
  f.Add("etcd.user", &user, "where the etcd asks for one");
  f.Add("etcd.password_file", &password_file, "of that user, readable by its owner only");
  f.Add("etcd.ca_file", &ca_file,
        "PEM authority of the servers' certificates; empty: the system's authorities");
  f.Add("etcd.cert_file", &cert_file, "PEM certificate that the servers are shown");
  f.Add("etcd.key_file", &key_file, "PEM key of etcd.cert_file");
}

Status EtcdConfig::Validate() const {
  if (endpoints.size() > kEtcdEndpointsMax) {
    return InvalidArgument(fmt::format("etcd.endpoints has {} entries, at most {} are used",
                                       endpoints.size(), kEtcdEndpointsMax));
  }
  for (const std::string& text : endpoints) RETURN_IF_ERROR(ParseEndpoint(*this, text).status());
  if (prefix.size() < 2 || !prefix.starts_with('/') || !prefix.ends_with('/') ||
      prefix.size() > kEtcdPrefixBytesMax) {
    return InvalidArgument(fmt::format(
        "etcd.prefix is \"{}\", expected a path that begins and ends with /, as /engram/", prefix));
  }
  RETURN_IF_ERROR(BothOrNone("etcd.user", user, "etcd.password_file", password_file));
  return BothOrNone("etcd.cert_file", cert_file, "etcd.key_file", key_file);
}

std::vector<EtcdEndpoint> EtcdConfig::Endpoints() const {
  std::vector<EtcdEndpoint> parsed;
  for (const std::string& text : endpoints) {
    const auto endpoint = ParseEndpoint(*this, text);
    CHECK(endpoint.ok()) << endpoint.status().message();
    parsed.push_back(*endpoint);
  }
  return parsed;
}

}  // namespace engram::memnode
