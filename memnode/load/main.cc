// engram-load: loads the lookup path of a cluster and verifies what comes back.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "memnode/load/run.h"

using namespace engram;

int main(int argc, char** argv) {
  CLI::App app(
      "Closed-loop lookup load on memory nodes, every row verified against the checkpoint");
  memnode::load::RunOptions options;
  memnode::load::ClosedLoopOptions& loop = options.loop;
  app.add_option("--model", options.model_dir, "model folder")->required();
  app.add_option("--model-name", options.model_name, "table set's name; default: the folder's");
  app.add_option("--model-version", options.model_version, "table set's version");
  app.add_option("--memnodes", options.memnodes, "host:port,... ; none: tables in this process")
      ->delimiter(',');
  app.add_option("--net-devices", options.net_devices, "UCX network devices");
  app.add_option("--tokens", loop.tokens, "tokens a step")->check(CLI::Range(1, 4096));
  app.add_option("--depth", loop.depth, "steps outstanding")->check(CLI::Range(1, 64));
  app.add_option("--seconds", loop.seconds, "timed part of the run")
      ->check(CLI::Range(0.1, 3600.0));
  app.add_option("--warm-up", loop.warm_up_seconds, "seconds before it")
      ->check(CLI::Range(0.0, 600.0));
  app.add_option("--deadline-ms", loop.deadline_ms, "of each step")->check(CLI::Range(1, 60000));
  app.add_option("--seed", loop.seed, "of the row ids");
  app.add_option("--verify-every", loop.verify_every, "compare every n-th step; 0: none")
      ->check(CLI::Range(0, 1000000));
  app.add_option("--json", options.json_file, "write the figures here");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    fmt::print(stderr, "engram-load: {}\n", error.what());
    return 1;
  }
  const Status status = memnode::load::Run(options);
  if (!status.ok()) fmt::print(stderr, "engram-load: {}\n", status.message());
  return status.ok() ? 0 : 1;
}
