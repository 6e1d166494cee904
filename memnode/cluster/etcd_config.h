// The settings of an etcd that keeps the cluster's state. Without endpoints there is none.
#pragma once

#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/config/config.h"

namespace engram::memnode {

struct EtcdEndpoint {
  std::string address;  // host:port
  bool tls = false;
};

struct EtcdConfig {
  std::vector<std::string> endpoints;
  std::string prefix = "/engram/";
  std::string user;
  std::string password_file;
  std::string ca_file;
  std::string cert_file;
  std::string key_file;

  void Describe(config::Fields& fields);
  // INVALID_ARGUMENT names the key, the value and what to do. Opens no file.
  Status Validate() const;

  bool used() const { return !endpoints.empty(); }
  std::vector<EtcdEndpoint> Endpoints() const;  // of a valid config
};
inline constexpr size_t kEtcdEndpointsMax = 16;
inline constexpr size_t kEtcdPrefixBytesMax = 256;

}  // namespace engram::memnode
