#include "memnode/node/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "common/checkpoint/model_tables.h"

namespace engram::memnode {
namespace {

constexpr uint64_t kSendBufferBytes = 126 << 10;

// "auto" asks for reserved huge pages, which fall back by themselves to transparent ones.
std::optional<PageBacking> BackingOf(const std::string& text) {
  if (text == "auto" || text == "hugetlb") return PageBacking::kHugeTlb;
  if (text == "transparent") return PageBacking::kTransparent;
  if (text == "small") return PageBacking::kSmall;
  return std::nullopt;
}

}  // namespace

void NodeConfig::Describe(config::Fields& f) {
  f.Add("node.name", &node_name, "this node's name; one of cluster.members");
  f.Add("cluster.members", &cluster_members,
        "all memory nodes, the same list on each: NAME [zone=ZONE] [weight=N]; a zone holds no row "
        "twice, a weight is a share of the rows");
  f.Add("cluster.replicas", &cluster_replicas, 1, table::kReplicasMax,
        "how many members hold each row, the same on each");
  f.Add("cluster.zone", &cluster_zone,
        "this node's zone, checked against its entry in cluster.members; empty: not checked");
  f.Add("cluster.weight", &cluster_weight, 0, table::kWeightMax,
        "this node's weight, checked against its entry in cluster.members; 0: not checked");
  f.Add("cluster.epoch", &cluster_epoch, 1, UINT32_MAX,
        "version of the member list; a list that engramctl changed has a higher one and is kept in "
        "the store: an epoch above that one makes this list count again");
  f.Add("cluster.membership", &cluster_membership,
        "which keeps the list once it is changed: static, each member for itself, or etcd");
  f.Add("cluster.join", &cluster_join,
        "this node need not be in cluster.members: it waits until engramctl add makes it a member");
  f.Add("cluster.move_mib_s", &cluster_move_mib_s, 0, 1 << 20,
        "how fast rows are read from other members when the list is changed; 0: as they come");
  f.Add("cluster.linger_s", &cluster_linger_s, 0, 86'400,
        "how long clients that have not heard of a new list are served by the one before");
  etcd.Describe(f);
  f.Add("model.path", &model_path,
        "folder of the checkpoint, imported at start; not needed to restart from a complete store, "
        "nor for what engramctl imports");
  f.Add("model.name", &model_name,
        "name of the table set; empty: the folder's name; both empty: what the store's catalog "
        "says");
  f.Add("model.version", &model_version, "version of the table set");
  f.Add("model.import_threads", &model_import_threads, 0, 1024, "0: four a CPU");
  f.Add("model.import_memory_mib", &model_import_memory_mib, 32, 1 << 20, "buffers of an import");
  f.Add("store.path", &store_path, "folder of this node's RocksDB store");
  f.Add("store.serve_while_loading", &store_serve_while_loading,
        "ready as soon as the store is open; rows not in memory yet are read from it");
  f.Add("store.load_threads", &store_load_threads, 0, 1024, "0: two a CPU");
  f.Add("store.scrub_mib_s", &store_scrub_mib_s, 0, 1 << 20,
        "how fast the store is read through for damage, in the background; 0: not at all");
  f.Add("store.scrub_pause_s", &store_scrub_pause_s, 0, 86'400 * 30,
        "between two passes over everything");
  f.Add("store.reserve_mib", &store_reserve_mib, 0, 1 << 20,
        "of the disk, kept for dropping versions when it is full; 0: none");
  f.Add("procedural.layout", &procedural_layout,
        "v41 or paper: serve computed rows instead of a model's, for load tests; empty: a model");
  f.Add("procedural.rows_scale", &procedural_rows_scale, "share of that layout's rows, 0..1");
  f.Add("procedural.seed", &procedural_seed, 0, INT64_MAX, "of the computed rows");
  f.Add("arena.pages", &arena_pages,
        "memory of the rows: auto, small, transparent or hugetlb; auto takes the best there is");
  f.Add(
      "arena.share", &arena_share,
      "whether clients of this host may map the rows: on, off, or auto: on when shared memory has "
      "huge pages too");
  f.Add("arena.numa_node", &arena_numa_node, -1, 1023, "of the rows; -1: where the kernel puts it");
  f.Add(
      "arena.budget_mib", &arena_budget_mib, 0, 1LL << 30,
      "memory for rows, of all versions together; what does not fit is read from the store; 0: as "
      "much as they need");
  f.Add("arena.scrub_mib_s", &arena_scrub_mib_s, 0, 1 << 20,
        "how fast rows in memory are read through for damage, in the background; 0: only where a "
        "client reports it");
  f.Add("tiers.cache_mib", &tiers_cache_mib, 0, 1LL << 30,
        "of that memory, for single rows read from the store, when not everything fits");
  f.Add("tiers.hot_set", &tiers_hot_set,
        "file of engramctl hotset: rows to keep in memory, when not everything fits");
  f.Add("tiers.readers", &tiers_readers, 1, 1024, "threads that read rows from the store");
  f.Add("tiers.balance_s", &tiers_balance_s, 1, 86400,
        "seconds after which busy partitions take the place of idle ones");
  f.Add("control.listen", &control_listen, "host:port of the control socket; port 0 picks one");
  f.Add("http.listen", &http_listen, "host:port of /health, /ready and /metrics");
  f.Add("transport.listen", &transport_listen,
        "host:port for the data of tcp clients; empty: the host of control.listen, any port");
  f.Add("transport.workers", &transport_workers, 1, 256,
        "data threads; each client belongs to one of them");
  f.Add("transport.spin_us", &transport_spin_us, 0, 1'000'000,
        "how long the idle data thread polls before it sleeps; 0 where it shares its cores with "
        "an engine: decoding beside two nodes on two cores 0.97 -> 1.01 of in-process tables");
  f.Add("transport.cpu", &transport_cpu, -1, 4095,
        "CPU of the first data thread, the next ones following; -1: not pinned");
  wire.Describe(f);  // goes on with transport.kind
  f.Add("limits.sessions_max", &limits_sessions_max, 1, 65536, "clients connected at once");
  f.Add("limits.window", &limits_window, 1, 1024,
        "lookups one client may have under way here; it holds the others back");
  f.Add("limits.drain_timeout_ms", &limits_drain_timeout_ms, 0, 3'600'000,
        "how long SIGTERM waits for clients to leave");
  f.Add("limits.prepared_timeout_ms", &limits_prepared_timeout_ms, 1'000, 86'400'000,
        "how long a version that was prepared for publication stays in memory once its tool no "
        "longer renews that");
  f.Add("limits.stuck_ms", &limits_stuck_ms, 100, 3'600'000,
        "a data thread that stands still for longer makes /health answer 503");
  f.Add("limits.send_buffers", &limits_send_buffers, 2, 4096,
        "replies under way at once in a data thread, about 126 KiB each");
  f.Add("log.level", &log_level, "trace, debug, info, warn, error or off");
}

Status NodeConfig::Validate() const {
  const auto map = ParseMap();
  if (!map.ok()) return map.status().WithContext("cluster.members");
  RETURN_IF_ERROR(CheckOwnEntry(*map));
  if (cluster_membership != "static" && cluster_membership != "etcd") {
    return InvalidArgument(
        fmt::format("cluster.membership is '{}', expected static or etcd", cluster_membership));
  }
  RETURN_IF_ERROR(etcd.Validate());
  if (uses_etcd() != etcd.used()) {
    return InvalidArgument(fmt::format(
        "cluster.membership is '{}' and etcd.endpoints has {} entries: set both, or none",
        cluster_membership, etcd.endpoints.size()));
  }
  RETURN_IF_ERROR(wire.Validate());
  if (arena_share != "auto" && arena_share != "on" && arena_share != "off") {
    return InvalidArgument(
        fmt::format("arena.share is '{}', expected auto, on or off", arena_share));
  }
  if (!BackingOf(arena_pages)) {
    return InvalidArgument(fmt::format(
        "arena.pages is '{}', expected auto, small, transparent or hugetlb", arena_pages));
  }
  if (procedural()) return table::MakeProceduralLayout(Procedural()).status();
  if (model_version.empty()) {
    return InvalidArgument("model.version is empty: name the version this node serves, e.g. 1");
  }
  if (store_path.empty()) {
    return InvalidArgument(
        "no store: set store.path to a folder for this node's tables, and model.path to a model's "
        "folder unless the store has what it should serve");
  }
  return OkStatus();
}

// Every node must know every member's zone and weight, so they stand in the list.
Status NodeConfig::CheckOwnEntry(const table::ClusterMap& map) const {
  const auto found = std::find(map.members.begin(), map.members.end(), node_name);
  if (found == map.members.end() && cluster_join) return OkStatus();
  if (found == map.members.end()) {
    return InvalidArgument(
        fmt::format("node.name '{}' is not among cluster.members [{}] (a node that is to be "
                    "added has cluster.join: true)",
                    node_name, fmt::join(map.members, ", ")));
  }
  const auto self = static_cast<size_t>(found - map.members.begin());
  const std::string zone = map.zones.empty() ? "" : map.zones[self];
  const int64_t weight = map.weights.empty() ? 1 : map.weights[self];
  if (!cluster_zone.empty() && cluster_zone != zone) {
    return InvalidArgument(fmt::format(
        "cluster.zone is '{}', but cluster.members has '{}' for {}: write \"{} zone={}\" there, on "
        "every node",
        cluster_zone, zone, node_name, node_name, cluster_zone));
  }
  if (cluster_weight != 0 && cluster_weight != weight) {
    return InvalidArgument(fmt::format(
        "cluster.weight is {}, but cluster.members has {} for {}: write \"{} weight={}\" there, on "
        "every node",
        cluster_weight, weight, node_name, node_name, cluster_weight));
  }
  return OkStatus();
}

Result<table::ClusterMap> NodeConfig::ParseMap() const {
  return table::ParseMembers(cluster_members, static_cast<uint32_t>(cluster_replicas),
                             static_cast<uint32_t>(cluster_epoch));
}

table::ClusterMap NodeConfig::Map() const {
  Result<table::ClusterMap> map = ParseMap();
  CHECK(map.ok()) << map.status().message();
  return *std::move(map);
}

std::string NodeConfig::ModelName() const {
  return model_name.empty() ? client::FolderName(model_path) : model_name;
}

PageBacking NodeConfig::ArenaBacking() const {
  const std::optional<PageBacking> backing = BackingOf(arena_pages);
  CHECK(backing.has_value()) << arena_pages;
  return *backing;
}

bool NodeConfig::SharesArena() const {
  if (arena_share != "auto") return arena_share == "on";
  return ArenaBacking() == PageBacking::kSmall || SharedHugePages();
}

uint64_t NodeConfig::SendBufferBytes() const {
  return static_cast<uint64_t>(transport_workers * limits_send_buffers) * kSendBufferBytes;
}

table::ProceduralSpec NodeConfig::Procedural() const {
  return {.layout = procedural_layout,
          .rows_scale = procedural_rows_scale,
          .seed = static_cast<uint64_t>(procedural_seed)};
}

}  // namespace engram::memnode
