#include "memnode/ctl/status/status_command.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <ctime>
#include <functional>
#include <memory>
#include <thread>

#include "common/base/clock.h"
#include "memnode/ctl/nodes.h"
#include "memnode/ctl/status/status_table.h"

namespace engram::ctl {
namespace {

constexpr Nanos kRateInterval = std::chrono::seconds(1);  // between the two looks of one table

struct Flags {
  NodeFlags nodes;
  double watch_s = 2;
  double timeout_s = 3;
  bool watch = false;
  bool json = false;

  Nanos Timeout() const { return Seconds(timeout_s); }
  Nanos Period() const { return Seconds(watch_s); }
  static Nanos Seconds(double seconds) {
    return std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(seconds));
  }
};

// The answer's next look at the node.
void Look(const Nodes& nodes, size_t node, Nanos timeout, Answer& answer) {
  answer.address = nodes.address(node);
  answer.before = std::exchange(answer.now, std::nullopt);
  const auto reply = nodes.Call(node, {{"command", "status"}}, timeout);
  auto parsed =
      reply.ok() ? ParseMemberReply(*reply, answer.address) : Result<MemberReply>(reply.status());
  answer.error = parsed.status();
  if (parsed.ok()) answer.now = *std::move(parsed);
}

// Looks at all at the same time, at those without an earlier answer twice, for their rates.
void LookAtAll(const Nodes& nodes, Nanos timeout, std::vector<Answer>& answers) {
  nodes.AtOnce([&](size_t node) {
    Answer& answer = answers[node];
    const bool known = answer.now.has_value();
    Look(nodes, node, timeout, answer);
    if (known || !answer.now) return;
    std::this_thread::sleep_for(kRateInterval);
    Look(nodes, node, timeout, answer);
  });
}

std::string TimeNow() {
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(std::time(nullptr)));
}

// Returns how many problems need a person.
size_t Show(const std::vector<Answer>& answers, const Flags& flags) {
  const ClusterView view = ViewCluster(answers);
  const std::vector<Problem> problems = FindProblems(view);
  const std::string when = TimeNow();
  const bool redraw = flags.watch && isatty(STDOUT_FILENO) != 0;
  if (flags.json) {
    fmt::print("{}\n", json::serialize(StatusJson(view, problems, when)));
  } else {
    fmt::print("{}{}{}", redraw ? "\x1b[H\x1b[2J" : "", StatusTable(view, problems, when),
               flags.watch && !redraw ? "\n" : "");
  }
  std::fflush(stdout);
  return CountForPersons(problems);
}

Status Judge(size_t problems) {
  if (problems == 0) return OkStatus();
  return FailedPrecondition(
      fmt::format("the cluster needs a person: {} problem{}", problems, problems == 1 ? "" : "s"));
}

Status Run(const Flags& flags) {
  ASSIGN_OR_RETURN(const Nodes nodes, Nodes::Open(flags.nodes));
  std::vector<Answer> answers(nodes.size());
  while (true) {
    LookAtAll(nodes, flags.Timeout(), answers);
    const size_t count = Show(answers, flags);
    if (!flags.watch) return Judge(count);
    std::this_thread::sleep_for(flags.Period());  // after the look: no rate is over less
  }
}

// Nothing is fine, too, where the option may stand alone. (CLI::Range lets "nan" pass.)
std::function<std::string(std::string)> SecondsWithin(double min, double max) {
  return [min, max](const std::string& text) -> std::string {
    double seconds = min;
    const char* const end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, seconds);
    const bool number = text.empty() || (parsed.ec == std::errc() && parsed.ptr == end);
    if (number && seconds >= min && seconds <= max) return "";
    return fmt::format("\"{}\" is not a number of seconds from {} to {}", text, min, max);
  };
}

}  // namespace

Subcommand AddStatusCommand(CLI::App& parent) {
  const auto flags = std::make_shared<Flags>();  // lives as long as the options that fill it
  CLI::App* app = parent.add_subcommand(
      "status",
      "how the memory nodes of a cluster are, and what to do about what is wrong; 1 when something "
      "needs a person");
  AddNodeFlags(*app, flags->nodes)->required();
  app->add_option_function<std::string>(
         "--watch",
         [flags](const std::string& text) {
           flags->watch = true;
           if (!text.empty()) flags->watch_s = std::stod(text);
         },
         "again every so many seconds (default: 2), until it is stopped; rates are over that time")
      ->expected(0, 1)
      ->type_name("[SECONDS]")
      ->check(SecondsWithin(0.2, 3600));
  app->add_option("--timeout", flags->timeout_s, "seconds that one node may take (default: 3)")
      ->type_name("SECONDS")
      ->check(SecondsWithin(0.05, 60));
  app->add_flag("--json", flags->json,
                "one object a look; scripts read healthy, members, problems");
  return {app, [flags] { return Run(*flags); }};
}

}  // namespace engram::ctl
