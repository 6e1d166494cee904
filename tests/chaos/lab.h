// What the chaos test does harm to: three memory nodes, an engine and the load tester, each a real
// process on a host of its own of the network.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/io/json.h"
#include "tests/chaos/network.h"
#include "tests/support/process.h"

namespace engram::chaos {

class Lab {
 public:
  static constexpr size_t kNodes = 3;  // m0, m1, m2, on hosts 1, 2 and 3

  // Starts everything and waits until it is whole; the error says what did not start.
  static Result<std::unique_ptr<Lab>> Make(std::unique_ptr<Network> network,
                                           const std::string& work_dir, double lookups_per_s);
  ~Lab();

  testing_support::Process& node(size_t i) { return *nodes_[i]; }
  testing_support::Process& engine() { return *engine_; }
  testing_support::Process& load() { return *load_; }
  Network& network() { return *network_; }
  void SetCable(size_t node, const Cable& cable) { network_->Set(NodeHost(node), cable); }

  // The node is started and not yet ready.
  void Launch(size_t node);
  // Waits until the node is ready; false: it has ended or takes too long.
  bool AwaitReady(size_t node);
  std::string control(size_t node) const;
  const std::string& model() const { return model_; }  // its folder
  const std::string& work_dir() const { return work_dir_; }
  std::string secret_file() const { return work_dir_ + "/secret"; }
  // A folder on a small disk of this node alone; below it is the store.
  std::string disk(size_t node) const;
  std::string store(size_t node) const { return disk(node) + "/store"; }

  // Of a node's /metrics; -1: it does not tell.
  double Metric(size_t node, const std::string& name) const;
  // Whether all nodes are ready and get lookups of the load, and the engine has connections to all.
  bool AwaitWhole();
  // What the engine answers to a fixed prompt, greedily, with probabilities: always the same.
  std::string Ask() const;
  // Ends the load. Its figures, and beside them the file of all its lookups.
  Result<json::object> EndLoad(std::string* lookups_file);

 private:
  Lab(std::unique_ptr<Network> network, const std::string& work_dir)
      : network_(std::move(network)), work_dir_(work_dir) {}
  static size_t NodeHost(size_t node) { return node + 1; }
  Status StartNodes();
  Status StartEngine();
  Status StartLoad(double lookups_per_s);
  std::string Memnodes() const;
  bool AllGetLookups() const;
  bool EngineHasAll() const;

  const std::unique_ptr<Network> network_;
  const std::string work_dir_;
  std::string model_;
  std::array<std::unique_ptr<testing_support::Process>, kNodes> nodes_;
  std::unique_ptr<testing_support::Process> engine_, load_;
  uint16_t engine_port_ = 0;
};

// Hosts that a network for a Lab must have; the first is the test's own, where the engine runs.
inline constexpr size_t kLabHosts = Lab::kNodes + 2;

}  // namespace engram::chaos
