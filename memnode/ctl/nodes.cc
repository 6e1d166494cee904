#include "memnode/ctl/nodes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "common/base/clock.h"
#include "common/base/threads.h"
#include "common/io/host_port.h"
#include "common/net/control/admin.h"
#include "memnode/ctl/progress_line.h"

namespace engram::ctl {
namespace {

constexpr Nanos kLookEvery = std::chrono::milliseconds(50);
constexpr Nanos kKeepAliveEvery = std::chrono::milliseconds(500);
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
  app.add_option("--tls-ca", flags.security.tls_ca, "PEM; signs the certificate of every peer");
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
    ASSIGN_OR_RETURN(io::HostPort place, io::ParseHostPort(address));
    nodes.places_.push_back(std::move(place));
  }
  ASSIGN_OR_RETURN(nodes.security_, net::LoadSecurity(flags.security));
  return nodes;
}

Nodes Nodes::Those(const std::vector<size_t>& chosen) const {
  Nodes those;
  for (const size_t node : chosen) {
    those.addresses_.push_back(addresses_[node]);
    those.places_.push_back(places_[node]);
  }
  those.security_ = security_;
  return those;
}

Result<json::object> Nodes::Call(size_t node, const json::object& request, Nanos timeout) const {
  return net::CallNode(places_[node].host, places_[node].port, request, timeout, security_.get());
}

void Nodes::AtOnce(const std::function<void(size_t node)>& body) const {
  std::atomic<size_t> next = 0;
  RunOnThreads(size(), "node call", [&] {
    for (size_t node = next++; node < size(); node = next++) body(node);
  });
}

std::vector<Result<json::object>> Nodes::CallEach(const json::object& request) const {
  std::vector<Result<json::object>> replies;
  for (size_t node = 0; node < size(); ++node) replies.push_back(Call(node, request));
  return replies;
}

namespace {

Result<std::vector<json::object>> AllOrNone(std::vector<Result<json::object>> results) {
  std::vector<Status> errors;
  for (const auto& result : results) errors.push_back(result.status());
  RETURN_IF_ERROR(JoinErrors(errors));
  std::vector<json::object> all;
  for (auto& result : results) all.push_back(*std::move(result));
  return all;
}

}  // namespace

Result<std::vector<json::object>> Nodes::CallAll(const json::object& request) const {
  return AllOrNone(CallEach(request));
}

Status JoinErrors(const std::vector<Status>& errors) {
  Status all;
  for (const Status& error : errors) {
    if (error.ok()) continue;
    all = all.ok() ? error : Status(all.code(), all.message() + "; " + error.message());
  }
  return all;
}

// One node's job as it was last seen.
struct Nodes::Job {
  size_t node = 0;
  std::string name;
  bool running = false;
  uint64_t done = 0, total = 0, bytes = 0;
  int unanswered = 0;  // looks, one after the other
  Status status;       // its error, or that of a node which does not answer any more
  json::object result;
};

std::vector<Nodes::Job> Nodes::Start(const json::object& request, bool all_or_none) const {
  std::vector<Job> jobs;
  for (size_t node = 0; node < size(); ++node) {
    const Result<json::object> started = Call(node, request);
    Job& job = jobs.emplace_back();
    job.node = node;
    job.status = started.status();
    job.running = started.ok();
    if (started.ok()) job.name = TextOf(*started, "job");
    if (!started.ok() && all_or_none) break;
  }
  return jobs;
}

void Nodes::Look(Job& job) const {
  const Result<json::object> seen = Call(job.node, {{"command", "job"}, {"job", job.name}});
  if (!seen.ok()) {
    job.running = IsUnreachable(seen.status()) && ++job.unanswered < kUnansweredMax;
    if (!job.running) job.status = seen.status();
    return;
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
  job.status = ErrorOf(*seen).WithContext(fmt::format("memory node {}", addresses_[job.node]));
}

// Looks at the jobs until all have ended.
void Nodes::Finish(std::vector<Job>& jobs, const std::string& what, bool all_or_none,
                   const KeepAlive& keep_alive) const {
  ProgressLine line(what);
  bool stopped = false;
  Status broken;  // the keep-alive's error
  TimePoint keep_at = Clock::Real().Now() + kKeepAliveEvery;
  const auto failed = [](const Job& job) { return !job.status.ok(); };
  while (std::ranges::any_of(jobs, &Job::running)) {
    if (!stopped && (!broken.ok() || (all_or_none && std::ranges::any_of(jobs, failed)))) {
      for (const Job& job : jobs) {
        if (job.running) (void)Call(job.node, {{"command", "cancel"}, {"job", job.name}});
      }
      stopped = true;
    }
    uint64_t done = 0, total = 0, bytes = 0;
    for (Job& job : jobs) {
      if (keep_alive && broken.ok() && Clock::Real().Now() >= keep_at) {
        std::vector<size_t> ended;
        for (const Job& other : jobs) {
          if (!other.running && other.status.ok()) ended.push_back(other.node);
        }
        broken = keep_alive(ended);
        keep_at = Clock::Real().Now() + kKeepAliveEvery;
      }
      if (job.running) Look(job);
      done += job.done;
      total += job.total;
      bytes += job.bytes;
    }
    line.Draw(done, total, bytes);
    if (std::ranges::any_of(jobs, &Job::running)) std::this_thread::sleep_for(kLookEvery);
  }
  if (!broken.ok() && std::ranges::none_of(jobs, failed)) jobs.front().status = broken;
}

Result<std::vector<json::object>> Nodes::RunJobs(const json::object& request,
                                                 const std::string& what,
                                                 const KeepAlive& keep_alive) const {
  std::vector<Job> jobs = Start(request, /*all_or_none=*/true);
  Finish(jobs, what, /*all_or_none=*/true, keep_alive);
  // The first cause, not what was stopped because of it.
  for (const bool stopped : {false, true}) {
    for (const Job& job : jobs) {
      if (!job.status.ok() && stopped == (job.status.code() == Code::kCancelled)) return job.status;
    }
  }
  std::vector<json::object> results;
  for (Job& job : jobs) results.push_back(std::move(job.result));
  return results;
}

std::vector<Result<json::object>> Nodes::RunEach(const json::object& request,
                                                 const std::string& what) const {
  std::vector<Job> jobs = Start(request, /*all_or_none=*/false);
  Finish(jobs, what, /*all_or_none=*/false, nullptr);
  std::vector<Result<json::object>> results;
  for (Job& job : jobs) {
    results.push_back(job.status.ok() ? Result<json::object>(std::move(job.result))
                                      : Result<json::object>(job.status));
  }
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
