#include "memnode/cluster/peers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

#include "common/client/lookup/client.h"
#include "common/io/host_port.h"
#include "common/io/object_reader.h"
#include "common/net/control/admin.h"
#include "memnode/store/table_plan.h"

namespace engram::memnode {
namespace {

constexpr Nanos kAskTimeout = std::chrono::seconds(3);
// For the newest state so many members are asked, or for so long.
constexpr int kAnswersWanted = 3;
constexpr Nanos kNewestWithin = std::chrono::seconds(6);
constexpr size_t kManifestPartBytes = 256 * 1024;
constexpr uint64_t kManifestBytesMax = uint64_t{256} << 20;
constexpr size_t kVersionsMax = 4096;
constexpr uint64_t kRowsAtOnce = 4096;  // of one lookup
constexpr Nanos kReadTimeout = std::chrono::seconds(10);
constexpr int kReadTries = 5;
constexpr auto kBetweenTries = std::chrono::seconds(1);

Result<KeptVersion> VersionFrom(const json::value& value) {
  KeptVersion kept;
  VersionInfo& info = kept.info;
  io::ObjectReader read(value, "version");
  read.String("model", info.model);
  read.String("version", info.version);
  read.Number("generation", info.generation);
  read.Bool("published", info.published);
  read.Bool("pinned", info.pinned);
  auto identity = table::IdentityFromJson(read.Object("identity"));
  identity.ok() ? void(kept.identity = *std::move(identity)) : read.Fail(identity.status());
  RETURN_IF_ERROR(read.status());
  return kept;
}

// Passes on so many bytes a second, to all threads together.
class Throttle {
 public:
  explicit Throttle(uint64_t mib_per_s)
      : ns_per_byte_(mib_per_s == 0 ? 0 : 1e9 / (static_cast<double>(mib_per_s) * 1048576.0)) {}
  void Pass(uint64_t bytes) {
    if (ns_per_byte_ == 0) return;
    const auto takes = Nanos(static_cast<int64_t>(static_cast<double>(bytes) * ns_per_byte_));
    TimePoint until;
    {
      const std::lock_guard lock(mutex_);
      next_ = std::max(next_, Clock::Real().Now()) + takes;
      until = next_;
    }
    const TimePoint now = Clock::Real().Now();
    if (until > now) std::this_thread::sleep_for(until - now);
  }

 private:
  const double ns_per_byte_;
  std::mutex mutex_;
  TimePoint next_;  // guarded by mutex_
};

class PeerRows final : public client::TableSource {
 public:
  PeerRows(std::unique_ptr<client::LookupClient> client, table::TableLayout layout,
           std::string digest, uint64_t mib_per_s, const std::atomic<bool>& cancel)
      : client_(std::move(client)),
        layout_(std::move(layout)),
        digest_(std::move(digest)),
        throttle_(mib_per_s),
        cancel_(cancel) {}

  const table::RowFormat& row_format() const override { return layout_.row_format; }
  uint32_t layer_count() const override { return static_cast<uint32_t>(layout_.layers.size()); }
  uint64_t rows(uint32_t layer_index) const override {
    return layout_.layers[layer_index].total_rows;
  }
  Status ReadRows(uint32_t layer_index, uint64_t first, uint64_t count,
                  std::byte* out) const override {
    const uint32_t row_bytes = layout_.row_format.row_bytes();
    std::vector<uint64_t> ids;
    for (uint64_t at = 0; at < count; at += kRowsAtOnce) {
      ids.resize(std::min(kRowsAtOnce, count - at));
      std::iota(ids.begin(), ids.end(), first + at);
      const std::span<std::byte> rows(out + at * row_bytes, ids.size() * row_bytes);
      throttle_.Pass(rows.size());
      RETURN_IF_ERROR(ReadPatiently({layer_index, ids, rows}));
    }
    return OkStatus();
  }
  std::string Fingerprint() const override { return "rows of other members, digest " + digest_; }
  Status CheckUnchanged() const override { return OkStatus(); }

 private:
  // An owner that is lost comes back, or the map goes on to another one.
  Status ReadPatiently(const client::LayerLookup& lookup) const {
    Status last;
    for (int tries = 0; tries < kReadTries; ++tries) {
      if (cancel_.load()) return Cancelled("reading rows of other members was stopped");
      if (tries > 0) std::this_thread::sleep_for(kBetweenTries);
      client::SubmitOptions options(Clock::Real().Now() + kReadTimeout);
      options.priority = client::Priority::kHint;
      auto ticket = client_->Submit({&lookup, 1}, options);
      last = ticket.ok() ? ticket->Wait(lookup.layer_index) : ticket.status();
      if (last.ok()) return last;
    }
    return last;
  }

  const std::unique_ptr<client::LookupClient> client_;
  const table::TableLayout layout_;
  const std::string digest_;
  mutable Throttle throttle_;
  const std::atomic<bool>& cancel_;
};

}  // namespace

json::object ClusterFacts(const ClusterState& state, const std::vector<KeptVersion>& versions) {
  json::array list;
  for (const auto& [info, identity] : versions) {
    list.push_back(json::object{{"model", info.model},
                                {"version", info.version},
                                {"generation", std::to_string(info.generation)},
                                {"published", info.published},
                                {"pinned", info.pinned},
                                {"identity", table::ToJson(identity)}});
  }
  return {{"state", ToJson(state)}, {"versions", std::move(list)}};
}

Result<json::object> ManifestPart(const Manifest& manifest, uint64_t offset) {
  const std::string text = ManifestToText(manifest);
  if (offset > text.size()) {
    return InvalidArgument(fmt::format("request: offset {} of {} bytes", offset, text.size()));
  }
  return json::object{{"total", std::to_string(text.size())},
                      {"text", text.substr(offset, kManifestPartBytes)}};
}

Result<std::vector<KeptVersion>> VersionsFrom(const json::object& reply) {
  std::vector<KeptVersion> versions;
  io::ObjectReader read(reply, "reply");
  for (const json::value& value : read.Array("versions", kVersionsMax)) {
    ASSIGN_OR_RETURN(versions.emplace_back(), VersionFrom(value));
  }
  RETURN_IF_ERROR(read.status());
  return versions;
}

std::vector<std::string> Peers::Others() const {
  std::vector<std::string> others;
  for (size_t i = 0; i < map_.addresses.size(); ++i) {
    if (map_.members[i] != options_.member) others.push_back(map_.addresses[i]);
  }
  return others;
}

Result<json::object> Peers::Ask(const std::string& address, const json::object& request) const {
  ASSIGN_OR_RETURN(const io::HostPort where, io::ParseHostPort(address));
  return net::CallNode(where.host, where.port, request, kAskTimeout, options_.security.get());
}

Result<ClusterState> Peers::NewestState() const {
  std::optional<ClusterState> newest;
  int answers = 0;
  const TimePoint until = Clock::Real().Now() + kNewestWithin;
  for (const std::string& address : Others()) {
    if (answers == kAnswersWanted || Clock::Real().Now() > until) break;
    const auto reply = Ask(address, {{"command", "cluster"}});
    if (!reply.ok()) continue;
    ++answers;
    io::ObjectReader read(*reply, "reply");
    auto state = StateFromJson(read.Object("state"));
    if (!read.status().ok() || !state.ok()) continue;
    if (!newest || state->revision > newest->revision) newest = *std::move(state);
  }
  if (newest) return *std::move(newest);
  return NotFound("no other member of the cluster was reached");
}

Result<std::vector<VersionInfo>> Peers::Versions() const {
  Status last = Unavailable("the map tells no address of another member");
  for (const std::string& address : Others()) {
    const auto reply = Ask(address, {{"command", "cluster"}});
    last = reply.status();
    if (!reply.ok()) continue;
    auto versions = VersionsFrom(*reply);
    last = versions.status();
    if (!versions.ok()) continue;
    std::vector<VersionInfo> infos;
    for (KeptVersion& kept : *versions) infos.push_back(std::move(kept.info));
    return infos;
  }
  return last.WithContext("asking the other members for their versions");
}

Result<Manifest> Peers::FetchManifest(const std::string& model, const std::string& version) const {
  Status last = Unavailable("the map tells no address of another member");
  for (const std::string& address : Others()) {
    std::string text;
    uint64_t total = 1;
    last = OkStatus();
    while (last.ok() && text.size() < total) {
      const auto reply = Ask(address, {{"command", "manifest"},
                                       {"name", model},
                                       {"version", version},
                                       {"offset", std::to_string(text.size())}});
      last = reply.status();
      if (!reply.ok()) break;
      std::string part;
      io::ObjectReader read(*reply, "reply");
      read.Number("total", total);
      read.String("text", part);
      last = read.status();
      if (last.ok() && (part.empty() || total > kManifestBytesMax)) {
        last = InvalidArgument("reply: a manifest that does not end");
      }
      text += part;
    }
    if (!last.ok()) continue;
    auto manifest = ParseManifest(text);
    last = manifest.status();
    if (!manifest.ok()) continue;
    for (Manifest::Layer& layer : manifest->layers) layer.held.clear();
    manifest->base_version.clear();
    return manifest;
  }
  return last.WithContext(
      fmt::format("asking the other members for version {} of {}", version, model));
}

Result<std::unique_ptr<client::TableSource>> Peers::OpenRows(
    const table::TableIdentity& identity, const std::atomic<bool>& cancel) const {
  table::TableLayout layout;
  ASSIGN_OR_RETURN(layout.row_format, FormatOf(identity));
  for (const auto& layer : identity.layers) {
    table::LayerLayout& added = layout.layers.emplace_back();
    added.layer_id = layer.layer_id;
    added.total_rows = layer.total_rows;
  }
  client::LookupClientOptions options;
  options.memnodes = map_.addresses;
  options.identity = identity;
  options.security = options_.security;
  options.make_transport = options_.make_transport;
  options.probe_timeout_ms = 1000;
  ASSIGN_OR_RETURN(auto connected, client::LookupClient::Connect(options, layout));
  return std::unique_ptr<client::TableSource>(
      std::make_unique<PeerRows>(std::move(connected), std::move(layout), identity.content_digest,
                                 options_.mib_per_s, cancel));
}

}  // namespace engram::memnode
