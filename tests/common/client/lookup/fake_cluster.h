// Fake nodes together with the options to reach them, and one step's lookup that knows the right
// answer.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/base/check.h"
#include "common/base/rng.h"
#include "common/client/lookup/client.h"
#include "common/io/host_port.h"
#include "common/net/ucx/transport.h"
#include "tests/common/client/lookup/fake_node.h"
#include "tests/support/fakes/loopback_transport.h"

namespace engram::client {

inline constexpr size_t kRowBytes = 264;

// Nodes m0.. and what a client needs to reach them.
struct FakeCluster {
  explicit FakeCluster(int count, bool ucx = false, uint32_t replicas = 1) : use_ucx(ucx) {
    map.replicas = replicas;
    for (int i = 0; i < count; ++i) map.members.push_back(fmt::format("m{}", i));
    identity = table::MakeIdentity(MakeTestLayout(), "tiny", "1");
    options.identity = identity;
    identity.content_digest = std::string(64, 'd');
    options.make_transport = [this] { return MakeTransport(); };
  }
  Result<std::unique_ptr<net::Transport>> MakeTransport() {
    if (use_ucx) return net::MakeUcxTransport({});
    auto transport = hub.MakeTransport();
    client_address = transport->address();
    return transport;
  }
  FakeNode::Behaviour BehaviourOf(size_t i) const {
    FakeNode::Behaviour behaviour;
    behaviour.map = map;
    behaviour.member = map.members[i];
    behaviour.identity = identity;
    return behaviour;
  }
  void StartNode(FakeNode::Behaviour behaviour) {
    auto transport = use_ucx ? *net::MakeUcxTransport({}) : hub.MakeTransport();
    nodes.push_back(std::make_unique<FakeNode>(std::move(behaviour), std::move(transport)));
    options.memnodes.push_back(nodes.back()->address());
  }
  // As a process that ended and was started again: the same address, a new transport.
  void StopNode(size_t i) { nodes[i].reset(); }
  void RestartNode(size_t i, FakeNode::Behaviour behaviour) {
    behaviour.port = io::ParseHostPort(options.memnodes[i])->port;
    auto transport = use_ucx ? *net::MakeUcxTransport({}) : hub.MakeTransport();
    nodes[i] = std::make_unique<FakeNode>(std::move(behaviour), std::move(transport));
  }
  void StartAll() {
    for (size_t i = 0; i < map.members.size(); ++i) StartNode(BehaviourOf(i));
  }
  Result<std::unique_ptr<LookupClient>> Connect() {
    return LookupClient::Connect(options, MakeTestLayout());
  }
  std::unique_ptr<LookupClient> MustConnect() {
    auto client = Connect();
    CHECK(client.ok()) << client.status().ToString();
    return std::move(*client);
  }

  bool use_ucx;
  net::LoopbackHub hub;
  std::string client_address;
  table::ClusterMap map;
  table::TableIdentity identity;
  LookupClientOptions options;
  std::vector<std::unique_ptr<FakeNode>> nodes;
};

// One step's rows and buffers, checked against the procedure.
struct Lookup {
  Lookup(uint64_t seed, size_t rows_per_layer, uint64_t below = 4000) {
    Rng rng(seed);
    for (auto& layer : rows) {
      for (size_t i = 0; i < rows_per_layer; ++i) layer.push_back(rng.NextBelow(below));
    }
    Resize();
  }
  void Resize() {
    for (size_t i = 0; i < 2; ++i) bytes[i].assign(rows[i].size() * kRowBytes, std::byte{0xee});
  }
  std::vector<LayerLookup> Layers() { return {{0, rows[0], bytes[0]}, {1, rows[1], bytes[1]}}; }
  uint64_t Distinct() const {
    return std::set(rows[0].begin(), rows[0].end()).size() +
           std::set(rows[1].begin(), rows[1].end()).size();
  }
  bool Right(uint32_t layer) const {
    std::array<std::byte, kRowBytes> expected;
    for (size_t i = 0; i < rows[layer].size(); ++i) {
      FillRow(layer, rows[layer][i], expected);
      if (std::memcmp(expected.data(), bytes[layer].data() + i * kRowBytes, kRowBytes) != 0) {
        return false;
      }
    }
    return true;
  }
  bool Untouched() const {
    for (const auto& layer : bytes) {
      for (const std::byte byte : layer) {
        if (byte != std::byte{0xee}) return false;
      }
    }
    return true;
  }
  std::array<std::vector<uint64_t>, 2> rows;
  std::array<std::vector<std::byte>, 2> bytes;
};

}  // namespace engram::client
