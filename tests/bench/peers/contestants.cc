#include "tests/bench/peers/contestants.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "tests/bench/peers/our_node.h"
#include "tests/bench/peers/rocksdb_peer.h"
#include "tests/bench/peers/servers.h"

namespace engram::bench {
namespace {

Result<Contestant> StartOurs(const Tables& tables, const Cores& cores, const std::string& transport,
                             const std::string& work_dir) {
  ASSIGN_OR_RETURN(std::unique_ptr<OurNode> started,
                   OurNode::Start(tables, cores, transport, work_dir));
  const std::shared_ptr<OurNode> node = std::move(started);  // held by make_reader too
  Contestant contestant;
  contestant.name = kOurs;
  contestant.version = "engram-memnode beside this program";
  contestant.settings = node->settings();
  contestant.bytes_per_row =
      static_cast<double>(node->memory_bytes()) / static_cast<double>(tables.row_count());
  contestant.make_reader = [node](size_t depth) { return Result(node->MakeReader(depth)); };
  contestant.alive = node;
  return contestant;
}

Result<Contestant> StartServer(const InstalledServer& server, const Tables& tables,
                               const Cores& cores, const std::string& work_dir) {
  Contestant contestant;
  contestant.name = server.spec.name;
  contestant.version = server.version;
  contestant.settings = server.settings;
  contestant.skipped = server.missing;
  if (!contestant.skipped.empty()) return contestant;
  ASSIGN_OR_RETURN(std::unique_ptr<SocketPeer> started,
                   SocketPeer::Start(server.spec, cores.server, work_dir));
  const std::shared_ptr<SocketPeer> peer = std::move(started);  // held by make_reader too
  RETURN_IF_ERROR(
      peer->Fill(tables.layout, tables.spec.seed).WithContext("filling " + server.spec.name));
  contestant.bytes_per_row =
      static_cast<double>(peer->memory_bytes()) / static_cast<double>(tables.row_count());
  const size_t row_bytes = tables.layout.row_format.row_bytes();
  contestant.make_reader = [peer, row_bytes](size_t depth) {
    return Result(peer->MakeReader(depth, row_bytes));
  };
  contestant.alive = peer;
  return contestant;
}

Result<Contestant> StartRocksdb(const Tables& tables, const std::string& work_dir) {
  Contestant contestant;
  contestant.name = "rocksdb";
  contestant.version = "RocksDB " + RocksdbVersion();
  contestant.settings = RocksdbSettings();
  ASSIGN_OR_RETURN(std::unique_ptr<RocksdbPeer> filled,
                   RocksdbPeer::Fill(tables.layout, tables.spec.seed, work_dir + "/rocksdb"));
  const std::shared_ptr<RocksdbPeer> peer = std::move(filled);  // held by make_reader too
  contestant.bytes_per_row =
      static_cast<double>(peer->disk_bytes()) / static_cast<double>(tables.row_count());
  contestant.depth_max = 1;
  contestant.make_reader = [peer](size_t) { return Result(peer->MakeReader()); };
  contestant.alive = peer;
  return contestant;
}

}  // namespace

Result<std::vector<Contestant>> StartContestants(const Tables& tables, const Cores& cores,
                                                 const std::vector<std::string>& only,
                                                 const std::string& transport,
                                                 const std::string& work_dir) {
  using Starter = std::function<Result<Contestant>()>;
  const auto server = [&](const InstalledServer& installed) {
    return StartServer(installed, tables, cores, work_dir);
  };
  const uint64_t rows = tables.row_count();
  const std::vector<std::pair<std::string, Starter>> all = {
      {kOurs, [&] { return StartOurs(tables, cores, transport, work_dir); }},
      {"redis", [&] { return server(RedisServer()); }},
      {"memcached", [&] { return server(MemcachedServer(rows, false)); }},
      {"memcached-meta", [&] { return server(MemcachedServer(rows, true)); }},
      {"rocksdb", [&] { return StartRocksdb(tables, work_dir); }},
  };
  for (const std::string& name : only) {
    const bool known =
        std::any_of(all.begin(), all.end(), [&](const auto& entry) { return entry.first == name; });
    if (!known) return InvalidArgument(fmt::format("--only {}: there is no such leg", name));
  }
  std::vector<Contestant> contestants;
  for (const auto& [name, start] : all) {
    if (!only.empty() && std::find(only.begin(), only.end(), name) == only.end()) continue;
    if (Interrupted()) return Cancelled("interrupted");
    fmt::print(stderr, "peers_bench: filling {} with {} rows\n", name, rows);
    ASSIGN_OR_RETURN(Contestant contestant, start());
    contestants.push_back(std::move(contestant));
  }
  return contestants;
}

}  // namespace engram::bench
