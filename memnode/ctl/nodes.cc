#include "memnode/ctl/nodes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <thread>

#include "common/base/clock.h"
#include "common/net/admin.h"
#include "memnode/ctl/progress_line.h"

namespace engram::ctl {
namespace {

constexpr Nanos kCallTimeout = std::chrono::seconds(20);
constexpr Nanos kLookEvery = std::chrono::milliseconds(50);
constexpr size_t kNodesMax = 1024;

std::string TextOf(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

uint64_t CountOf(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr) return 0;
  if (value->is_uint64()) return value->get_uint64();
  return value->is_int64() && value->get_int64() > 0 ? static_cast<uint64_t>(value->get_int64())
                                                     : 0;
}

// Of a job that failed; OK when it did not.
Status ErrorOf(const json::object& job) {
  if (TextOf(job, "state") != "failed") return OkStatus();
  const json::value* error = job.if_contains("error");
  if (error == nullptr || !error->is_object()) return InternalError("a job failed without a word");
  const auto code = io::GetInt(error->get_object(), "code", "job");
  const bool known = code.ok() && *code > 0 && *code <= static_cast<int64_t>(Code::kInternal);
  return Status(known ? static_cast<Code>(*code) : Code::kInternal,
                TextOf(error->get_object(), "message"));
}

}  // namespace

void AddSecurityFlags(CLI::App& app, NodeFlags& flags) {
  app.add_option("--secret-file", flags.security.secret_file, "file with the cluster's secret");
  app.add_option("--tls-certificate", flags.security.tls_certificate,
                 "PEM chain; TLS is on with it");
  app.add_option("--tls-key", flags.security.tls_key, "PEM");
  app.add_option("--tls-ca", flags.security.tls_ca, "PEM; who it signed is one of the cluster");
}

CLI::Option* AddNodeFlags(CLI::App& app, NodeFlags& flags) {
  AddSecurityFlags(app, flags);
  return app
      .add_option("--nodes", flags.addresses,
                  "host:port,... of the control sockets of all memory nodes")
      ->delimiter(',');
}

Result<Nodes> Nodes::Open(const NodeFlags& flags) {
  if (flags.addresses.empty() || flags.addresses.size() > kNodesMax) {
    return InvalidArgument(
        fmt::format("{} memory nodes are named, must be 1..{}", flags.addresses.size(), kNodesMax));
  }
  Nodes nodes;
  nodes.addresses_ = flags.addresses;
  for (const std::string& address : flags.addresses) {
    ASSIGN_OR_RETURN(net::HostPort place, net::ParseHostPort(address));
    nodes.places_.push_back(std::move(place));
  }
  ASSIGN_OR_RETURN(nodes.security_, net::LoadSecurity(flags.security));
  return nodes;
}

Result<json::object> Nodes::Call(size_t node, const json::object& request) const {
  return net::CallNode(places_[node].host, places_[node].port, request, kCallTimeout,
                       security_.get());
}

Result<std::vector<json::object>> Nodes::CallAll(const json::object& request) const {
  std::vector<json::object> replies;
  for (size_t node = 0; node < size(); ++node) {
    ASSIGN_OR_RETURN(json::object reply, Call(node, request));
    replies.push_back(std::move(reply));
  }
  return replies;
}

Result<std::vector<json::object>> Nodes::RunJobs(const json::object& request,
                                                 const std::string& what) const {
  std::vector<std::string> jobs;
  Status failed;
  for (size_t node = 0; node < size() && failed.ok(); ++node) {
    const Result<json::object> started = Call(node, request);
    if (started.ok()) jobs.push_back(TextOf(*started, "job"));
    failed = started.status();
  }
  ProgressLine line(what);
  std::vector<json::object> results(jobs.size());
  std::set<size_t> running;
  for (size_t node = 0; node < jobs.size(); ++node) running.insert(node);
  bool stopped = false;
  while (!running.empty()) {
    if (!failed.ok() && !stopped) {
      for (const size_t node : running) {
        (void)Call(node, {{"command", "cancel"}, {"job", jobs[node]}});
      }
      stopped = true;
    }
    uint64_t done = 0, total = 0;
    for (size_t node = 0; node < jobs.size(); ++node) {
      if (!running.contains(node)) continue;
      const Result<json::object> job = Call(node, {{"command", "job"}, {"job", jobs[node]}});
      if (job.ok()) {
        done += CountOf(*job, "done");
        total += CountOf(*job, "total");
      }
      const Status error = job.ok() ? ErrorOf(*job) : job.status();
      if (!error.ok() && failed.ok()) {
        failed =
            job.ok() ? error.WithContext(fmt::format("memory node {}", addresses_[node])) : error;
      }
      if (job.ok() && TextOf(*job, "state") == "running") continue;
      if (job.ok() && job->contains("result")) {
        results[node] = job->at("result").get_object();
      }
      running.erase(node);
    }
    line.Draw(done, total);
    if (!running.empty()) std::this_thread::sleep_for(kLookEvery);
  }
  if (!failed.ok()) return failed;
  return results;
}

Status Nodes::CheckWhole(const std::vector<json::object>& versions) const {
  std::set<std::string> seen;
  json::value members;
  for (size_t node = 0; node < versions.size(); ++node) {
    const std::string member = TextOf(versions[node], "member");
    if (!seen.insert(member).second) {
      return FailedPrecondition(
          fmt::format("two of the memory nodes named are {}: name each once", member));
    }
    const json::value* theirs = versions[node].if_contains("members");
    if (theirs == nullptr) return InternalError("a memory node does not tell its members");
    if (node == 0) members = *theirs;
    if (*theirs != members) {
      return FailedPrecondition(fmt::format(
          "memory nodes {} and {} belong to different clusters: {} and {}", addresses_[0],
          addresses_[node], json::serialize(members), json::serialize(*theirs)));
    }
  }
  for (const json::value& member : members.as_array()) {
    if (seen.contains(std::string(member.as_string()))) continue;
    return FailedPrecondition(fmt::format(
        "member {} of the cluster {} is not among the memory nodes named: name them all",
        json::serialize(member), json::serialize(members)));
  }
  return OkStatus();
}

}  // namespace engram::ctl
