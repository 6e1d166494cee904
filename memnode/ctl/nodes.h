// The memory nodes a command talks to: their addresses, the cluster's secret, and calls to all of
// them.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/io/host_port.h"
#include "common/io/json.h"
#include "common/net/control/control.h"
#include "common/net/tcp/security.h"

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

  // Some of these.
  Nodes Those(const std::vector<size_t>& chosen) const;

  static constexpr Nanos kCallTimeout = std::chrono::seconds(20);
  // Errors name the node.
  Result<json::object> Call(size_t node, const json::object& request,
                            Nanos timeout = kCallTimeout) const;
  // Runs `body` for every node, at the same time on threads of its own; returns when all are done.
  void AtOnce(const std::function<void(size_t node)>& body) const;
  // Of every node, in order: its reply or its error.
  std::vector<Result<json::object>> CallEach(const json::object& request) const;
  // The replies in order, or one error that names every node which gave none.
  Result<std::vector<json::object>> CallAll(const json::object& request) const;

  // Called every few hundred milliseconds while jobs run, with the nodes whose jobs have ended well
  // so far. An error of it is taken as that of a job.
  using KeepAlive = std::function<Status(const std::vector<size_t>& ended)>;
  // Starts a job on every node and waits for all of them, drawing one progress line on a terminal.
  // Joins jobs that are running already. When one fails the others are stopped.
  Result<std::vector<json::object>> RunJobs(const json::object& request, const std::string& what,
                                            const KeepAlive& keep_alive = nullptr) const;
  // The same, but each node's job goes on to its own end, whatever becomes of the others.
  std::vector<Result<json::object>> RunEach(const json::object& request,
                                            const std::string& what) const;
  // FAILED_PRECONDITION unless these are all members of one cluster, each once.
  Status CheckWhole(const std::vector<json::object>& versions) const;

 private:
  struct Job;
  std::vector<Job> Start(const json::object& request, bool all_or_none) const;
  void Look(Job& job) const;
  void Finish(std::vector<Job>& jobs, const std::string& what, bool all_or_none,
              const KeepAlive& keep_alive) const;

  std::vector<std::string> addresses_;
  std::vector<io::HostPort> places_;
  std::shared_ptr<const net::Security> security_;
};

// One error that says all of these, with the code of the first; OK when all are.
Status JoinErrors(const std::vector<Status>& errors);

}  // namespace engram::ctl
