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
// A node under load may miss a look; one that has gone refuses the connection at once, many times.
constexpr int kUnansweredMax = 3;

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

bool IsUnreachable(const Status& status) {
  return status.code() == Code::kUnavailable || status.code() == Code::kDeadlineExceeded;
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

// One node's job as it was last seen.
struct Nodes::Job {
  size_t node = 0;
  std::string id;
  bool running = true;
  uint64_t done = 0, total = 0, bytes = 0;
  int unanswered = 0;  // looks, one after the other
  json::object result;
};

// The job's error, or that of a node which does not answer any more.
Status Nodes::Look(Job& job) const {
  const Result<json::object> seen = Call(job.node, {{"command", "job"}, {"job", job.id}});
  if (!seen.ok()) {
    job.running = IsUnreachable(seen.status()) && ++job.unanswered < kUnansweredMax;
    return job.running ? OkStatus() : seen.status();
  }
  job.unanswered = 0;
  job.done = CountOf(*seen, "done");
  job.total = CountOf(*seen, "total");
  job.bytes = CountOf(*seen, "bytes");
  job.running = TextOf(*seen, "state") == "running";
  if (const json::value* result = seen->if_contains("result");
      result != nullptr && result->is_object()) {
    job.result = result->get_object();
  }
  return ErrorOf(*seen).WithContext(fmt::format("memory node {}", addresses_[job.node]));
}

Result<std::vector<json::object>> Nodes::RunJobs(const json::object& request,
                                                 const std::string& what) const {
  std::vector<Job> jobs;
  Status failed;
  for (size_t node = 0; node < size() && failed.ok(); ++node) {
    const Result<json::object> started = Call(node, request);
    failed = started.status();
    if (!started.ok()) break;
    jobs.emplace_back();
    jobs.back().node = node;
    jobs.back().id = TextOf(*started, "job");
  }
  ProgressLine line(what);
  bool stopped = false;
  while (std::ranges::any_of(jobs, &Job::running)) {
    if (!failed.ok() && !stopped) {
      for (const Job& job : jobs) {
        if (job.running) (void)Call(job.node, {{"command", "cancel"}, {"job", job.id}});
      }
      stopped = true;
    }
    uint64_t done = 0, total = 0, bytes = 0;
    for (Job& job : jobs) {
      if (job.running) {
        const Status error = Look(job);
        if (failed.ok()) failed = error;
      }
      done += job.done;
      total += job.total;
      bytes += job.bytes;
    }
    line.Draw(done, total, bytes);
    if (std::ranges::any_of(jobs, &Job::running)) std::this_thread::sleep_for(kLookEvery);
  }
  if (!failed.ok()) return failed;
  std::vector<json::object> results;
  for (Job& job : jobs) results.push_back(std::move(job.result));
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
