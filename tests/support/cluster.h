// A real cluster for end-to-end tests: engram-memnode processes on ports the system chose, and the
// tools run on it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/support/process.h"

namespace engram::testing_support {

std::string Binary(const std::string& name);

// Makes a model with engramctl make-model; returns its folder. Fails the test when that fails.
std::string MakeModel(const std::string& work_dir, const std::string& preset,
                      const std::string& variant, int seed);

class Cluster {
 public:
  // Starts `count` nodes m0.. on `model_dir`, each with a store of its own below `work_dir`; fails
  // the test when one is not ready in time. `extra` is appended to every node's command line.
  Cluster(const std::string& work_dir, const std::string& model_dir, int count,
          std::vector<std::string> extra = {});

  // Starts one more node, which waits to be added to the list of the others.
  void StartJoining();
  Process& node(size_t i) { return *nodes_[i]; }
  // Starts a node that has ended again: same command line, same control port.
  void Restart(size_t i);
  size_t size() const { return nodes_.size(); }
  // "host:port,host:port": the value of --memnodes.
  std::string memnodes() const;
  const std::string& control(size_t i) const { return control_[i]; }
  const std::string& http(size_t i) const { return http_[i]; }
  // The body, and its status in `code`: "" and 0 without an answer within 5 s.
  std::string Get(size_t i, const std::string& path, int* code) const;
  // Lookups that a node has answered since its start; -1: it does not tell.
  double Answered(size_t i) const;
  // Waits until each of these nodes has answered 20 more lookups; false: one has not, for long.
  bool GoOn(const std::vector<size_t>& nodes) const;

 private:
  void Start(size_t i, const std::vector<std::string>& settings);
  void AwaitReady(size_t i);

  std::string work_dir_;
  std::string members_;  // of the settings
  std::vector<std::string> extra_;
  std::vector<std::vector<std::string>> argv_;
  std::vector<std::unique_ptr<Process>> nodes_;
  std::vector<std::string> control_;
  std::vector<std::string> http_;
};

}  // namespace engram::testing_support
