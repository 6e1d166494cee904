#include "common/client/lookup/node_paths.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/net/control/fd_passing.h"
#include "common/obs/log.h"
#include "common/table/owners.h"

namespace engram::client {
namespace {

table::ArenaMap ArenaOf(const net::Welcome& welcome, const table::TableLayout& layout) {
  const auto& members = welcome.map.members;
  const auto self = std::find(members.begin(), members.end(), welcome.member) - members.begin();
  const uint32_t row_bytes = layout.row_format.row_bytes();
  std::vector<table::ArenaMap::Layer> layers;
  std::vector<table::LayerPartitions> cuts;
  for (uint32_t i = 0; i < layout.layers.size(); ++i) {
    table::ArenaMap::Layer layer;
    layer.layer_id = layout.layers[i].layer_id;
    layer.cut = table::CutLayer(layout.layers[i].total_rows, row_bytes);
    cuts.push_back(layer.cut);
    layers.push_back(std::move(layer));
  }
  const table::OwnerTable owners(welcome.map, cuts);
  for (uint32_t i = 0; i < layers.size(); ++i) {
    layers[i].owned = owners.OwnedBy(static_cast<uint16_t>(self), i);
  }
  return table::ArenaMap(std::move(layers), row_bytes);
}

Status OpenLocal(const net::Welcome& welcome, Nanos timeout, NodePaths& paths) {
  if (welcome.local_socket.empty()) {
    return Unavailable("the node does not share its memory (arena.share)");
  }
  ASSIGN_OR_RETURN(const OwnedFd fd,
                   net::ReceiveFd(welcome.local_socket, welcome.local_token, timeout));
  ASSIGN_OR_RETURN(AlignedBuffer mapped,
                   AlignedBuffer::MapShared(fd.get(), paths.arena.size_bytes()));
  paths.mapped = std::make_shared<const AlignedBuffer>(std::move(mapped));
  paths.open[static_cast<size_t>(Path::kLocal)] = true;
  return OkStatus();
}

Status OpenMemory(const net::Welcome& welcome, net::Transport& transport, net::PeerId peer,
                  NodePaths& paths) {
  if (!transport.one_sided()) {
    return FailedPrecondition("transport " + transport.name() + " has no one-sided reads here");
  }
  if (welcome.one_sided_key.empty()) return Unavailable("the node offers no one-sided reads");
  RETURN_IF_ERROR(transport.OpenMemory(peer, welcome.one_sided_key));
  paths.open[static_cast<size_t>(Path::kOneSided)] = true;
  return OkStatus();
}

// A path that was not asked for by name may be missing.
Status Judge(const Status& opened, PathChoice choice, const std::string& label, Path path) {
  if (opened.ok()) return opened;
  if (choice) {
    return opened.WithContext(
        fmt::format("memory node {}: lookup path {} was asked for", label, PathName(path)));
  }
  obs::LogDebug(
      fmt::format("path not open node={} path={} why={}", label, PathName(path), opened.message()));
  return OkStatus();
}

}  // namespace

Result<PathChoice> ParsePathChoice(const std::string& text) {
  if (text == "auto") return PathChoice();
  for (const Path path : {Path::kLocal, Path::kGather, Path::kOneSided}) {
    if (text == PathName(path)) return PathChoice(path);
  }
  return InvalidArgument(
      fmt::format("lookup path '{}', expected auto, local, gather or one_sided", text));
}

int NodePaths::open_count() const {
  return static_cast<int>(std::count(open.begin(), open.end(), true));
}

Path NodePaths::Choose(uint32_t rows) const {
  if (forced) return *forced;
  Path best = Path::kGather;
  double best_ns = 0;
  for (size_t i = 0; i < kPathCount; ++i) {
    if (!open[i]) continue;
    const double ns = costs[i].fixed_ns + rows * costs[i].per_row_ns;
    if (best_ns != 0 && ns >= best_ns) continue;
    best = static_cast<Path>(i);
    best_ns = ns;
  }
  return best;
}

Result<NodePaths> OpenPaths(PathChoice choice, const net::Welcome& welcome,
                            const table::TableLayout& layout, const std::string& label,
                            Nanos timeout) {
  NodePaths paths;
  paths.forced = choice;
  paths.open[static_cast<size_t>(Path::kGather)] = true;
  paths.arena = ArenaOf(welcome, layout);
  if (choice && *choice != Path::kLocal) return paths;
  RETURN_IF_ERROR(Judge(OpenLocal(welcome, timeout, paths), choice, label, Path::kLocal));
  return paths;
}

Status OpenOneSided(const net::Welcome& welcome, const std::string& label,
                    net::Transport& transport, net::PeerId peer, NodePaths& paths) {
  if (paths.forced && *paths.forced != Path::kOneSided) return OkStatus();
  return Judge(OpenMemory(welcome, transport, peer, paths), paths.forced, label, Path::kOneSided);
}

PathCost FitCost(uint32_t few_rows, Nanos few, uint32_t many_rows, Nanos many) {
  const auto few_ns = static_cast<double>(few.count());
  const auto many_ns = static_cast<double>(many.count());
  PathCost cost;
  if (many_rows > few_rows) {
    cost.per_row_ns = std::max(0.0, (many_ns - few_ns) / (many_rows - few_rows));
  }
  cost.fixed_ns = std::max(1.0, few_ns - few_rows * cost.per_row_ns);
  return cost;
}

}  // namespace engram::client
