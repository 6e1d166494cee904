// Settings of engram-memnode; configs/memnode.yaml mirrors them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "common/config/config.h"
#include "common/table/placement.h"

namespace engram::memnode {

struct NodeConfig {
  std::string node_name = "m0";
  std::vector<std::string> cluster_members = {"m0"};
  int64_t cluster_epoch = 1;
  std::string model_path;
  std::string model_name;  // empty: the folder's name
  std::string model_version = "1";
  std::string store_path;
  std::string arena_pages = "auto";
  std::string control_listen = "127.0.0.1:7400";
  std::string http_listen = "127.0.0.1:7410";
  std::string transport_tls = "tcp,self";
  std::string transport_net_devices = "all";
  int64_t transport_spin_us = 50;
  int64_t transport_cpu = -1;
  int64_t limits_sessions_max = 256;
  int64_t limits_queued_requests_max = 256;
  int64_t limits_drain_timeout_ms = 5000;
  int64_t limits_send_buffers = 16;
  std::string log_level = "info";

  void Describe(config::Fields& fields);
  // What Load cannot check by itself; INVALID_ARGUMENT names the key, the value and what to do.
  Status Validate() const;

  table::ClusterMap Map() const;
  // model.name, or the folder's name.
  std::string ModelName() const;
  PageBacking ArenaBacking() const;  // of a valid config
};

}  // namespace engram::memnode
