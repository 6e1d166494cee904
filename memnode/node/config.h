// Settings of engram-memnode; configs/memnode.yaml mirrors them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/buffer.h"
#include "common/base/status.h"
#include "common/config/config.h"
#include "common/net/wire_config.h"
#include "common/table/placement.h"
#include "common/table/procedural.h"
#include "memnode/cluster/etcd_config.h"

namespace engram::memnode {

struct NodeConfig {
  std::string node_name = "m0";
  std::vector<std::string> cluster_members = {"m0"};
  int64_t cluster_replicas = 1;
  std::string cluster_zone;    // empty: as cluster.members says
  int64_t cluster_weight = 0;  // 0: as cluster.members says
  int64_t cluster_epoch = 1;
  std::string cluster_membership = "static";
  EtcdConfig etcd;
  bool cluster_join = false;
  int64_t cluster_move_mib_s = 128;
  int64_t cluster_linger_s = 30;
  std::string model_path;
  std::string model_name;  // empty: the folder's name
  std::string model_version = "1";
  int64_t model_import_threads = 0;
  int64_t model_import_memory_mib = 512;
  std::string store_path;
  bool store_serve_while_loading = false;
  int64_t store_load_threads = 0;
  int64_t store_scrub_mib_s = 8;
  int64_t store_scrub_pause_s = 600;
  int64_t store_reserve_mib = 16;
  std::string procedural_layout;  // empty: a model
  double procedural_rows_scale = 1;
  int64_t procedural_seed = 1;
  std::string arena_pages = "auto";
  std::string arena_share = "auto";
  int64_t arena_numa_node = -1;
  int64_t arena_budget_mib = 0;
  int64_t arena_scrub_mib_s = 16;
  int64_t tiers_cache_mib = 64;
  std::string tiers_hot_set;
  int64_t tiers_readers = 32;
  int64_t tiers_balance_s = 10;
  std::string control_listen = "127.0.0.1:7400";
  std::string http_listen = "127.0.0.1:7410";
  net::WireConfig wire;
  std::string transport_listen;  // empty: control's host, any port
  int64_t transport_workers = 1;
  int64_t transport_spin_us = 50;
  int64_t transport_cpu = -1;
  int64_t limits_sessions_max = 256;
  int64_t limits_window = 16;
  int64_t limits_drain_timeout_ms = 5000;
  int64_t limits_prepared_timeout_ms = 60'000;
  int64_t limits_stuck_ms = 5000;
  int64_t limits_send_buffers = 64;
  std::string log_level = "info";

  void Describe(config::Fields& fields);
  // What Load cannot check by itself; INVALID_ARGUMENT names the key, the value and what to do.
  Status Validate() const;

  table::ClusterMap Map() const;  // of a valid config
  // model.name, or the folder's name.
  std::string ModelName() const;
  // Both of a valid config. "auto" shares the arena when that costs no huge pages.
  PageBacking ArenaBacking() const;
  bool SharesArena() const;
  uint64_t SendBufferBytes() const;  // of all data threads
  bool uses_etcd() const { return cluster_membership == "etcd"; }
  bool procedural() const { return !procedural_layout.empty(); }
  table::ProceduralSpec Procedural() const;

 private:
  Result<table::ClusterMap> ParseMap() const;
  Status CheckOwnEntry(const table::ClusterMap& map) const;
};

}  // namespace engram::memnode
