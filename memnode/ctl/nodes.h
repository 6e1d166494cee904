// The memory nodes a command talks to: their addresses, the cluster's secret, and calls to all of
// them at once.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"
#include "common/net/control.h"
#include "common/net/security.h"

namespace engram::ctl {

struct NodeFlags {
  std::vector<std::string> addresses;
  net::SecurityOptions security;
};
// --secret-file and --tls-*; the addresses have an option of their own in each command.
void AddSecurityFlags(CLI::App& app, NodeFlags& flags);
// The same and --nodes.
CLI::Option* AddNodeFlags(CLI::App& app, NodeFlags& flags);

class Nodes {
 public:
  static Result<Nodes> Open(const NodeFlags& flags);

  size_t size() const { return addresses_.size(); }
  const std::string& address(size_t node) const { return addresses_[node]; }

  // Errors name the node.
  Result<json::object> Call(size_t node, const json::object& request) const;
  // In order; the first error ends it.
  Result<std::vector<json::object>> CallAll(const json::object& request) const;
  // Starts a job on every node and waits for all of them, drawing one progress line on a terminal.
  // Joins jobs that are running already. When one fails the others are stopped.
  Result<std::vector<json::object>> RunJobs(const json::object& request,
                                            const std::string& what) const;
  // FAILED_PRECONDITION unless these are all members of one cluster, each once.
  Status CheckWhole(const std::vector<json::object>& versions) const;

 private:
  struct Job;
  Status Look(Job& job) const;

  std::vector<std::string> addresses_;
  std::vector<net::HostPort> places_;
  std::shared_ptr<const net::Security> security_;
};

}  // namespace engram::ctl
