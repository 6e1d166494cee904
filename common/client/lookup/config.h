// The settings of a lookup client that every program shares.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/client/lookup/client.h"
#include "common/config/config.h"
#include "common/net/wire_config.h"

namespace engram::client {

struct LookupConfig {
  std::vector<std::string> memnodes;
  int64_t connect_timeout_ms = 5000;
  std::string path = "auto";
  int64_t spin_us = 50;
  int64_t probe_timeout_ms = 1000;
  int64_t hedge_us = 0;
  int64_t cache_mib = 0;
  net::WireConfig wire;

  void Describe(config::Fields& fields);
  // INVALID_ARGUMENT names the key, the value and what to do.
  Status Validate() const;
  // Everything but the identity; loads the secret and certificates.
  Result<LookupClientOptions> Options() const;
  // Connects to the memory nodes, behind a cache when cache_mib says so. `check`: as
  // LookupClientOptions::check.
  Result<std::unique_ptr<RowSource>> Connect(
      const table::TableLayout& layout, const table::TableIdentity& identity,
      const std::function<Status(LookupClient&)>& check = nullptr) const;
};

}  // namespace engram::client
