// rows_bench: the read paths beside their ceilings.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "common/obs/log.h"
#include "tests/bench/rows/rows_bench.h"

using namespace engram;

int main(int argc, char** argv) {
  bench::RowsOptions options;
  bool no_ucx_perftest = false;
  CLI::App app(
      "Ceilings and our paths in interleaved rounds: memory copy, bare gather, in-process gather,\n"
      "service with and without its gather, shared memory, bare round trips, ucx_perftest.");
  app.add_option("--table-mib", options.table_mib, "rows, held once or twice")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--step-rows", options.step_rows, "rows of a step, even")
      ->check(CLI::Range(2, 12288))
      ->capture_default_str();
  app.add_option("--token-rows", options.token_rows, "rows of a small step, even")
      ->check(CLI::Range(2, 12288))
      ->capture_default_str();
  app.add_option("--depth", options.depth, "steps outstanding at the service")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_option("--transport", options.transport, "of the service")->capture_default_str();
  app.add_option("--rounds", options.rounds.rounds, "of all legs")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seconds", options.rounds.seconds, "of a leg in a round")
      ->check(CLI::Range(0.001, 60.0))
      ->capture_default_str();
  app.add_option("--warm-up", options.rounds.warm_up_seconds, "seconds a leg, all rows compared")
      ->check(CLI::Range(0.0, 60.0))
      ->capture_default_str();
  app.add_option("--verify-every", options.verify_every,
                 "compare every n-th row when timed; 0: none")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app.add_option("--sizes", options.sweep_mib,
                 "MiB,...: cost of a row by table size, smallest first")
      ->delimiter(',');
  app.add_flag("--shapes", options.shapes,
               "also rows of 160, 264 and 1,364 bytes in batches of 48, 3,072 and 98,304");
  app.add_option("--legs", options.legs, "NAME,...: only legs whose names hold one of these")
      ->delimiter(',');
  app.add_flag("--no-ucx-perftest", no_ucx_perftest, "leave it out");
  app.add_option("--seed", options.seed, "of rows and ids")->capture_default_str();
  app.add_option("--server-cpu", options.cores.server, "-1: not pinned")->capture_default_str();
  app.add_option("--client-cpu", options.cores.client, "-1: not pinned")->capture_default_str();
  app.add_option("--json", options.json_file, "write the figures here");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    fmt::print(stderr, "rows_bench: {}\n", error.what());
    return 1;
  }
  options.ucx_perftest = !no_ucx_perftest;
  bench::CatchInterrupts();
  Status status = obs::InitLog("rows_bench", "warn");
  if (status.ok()) status = bench::RunRowsBench(options);
  if (!status.ok()) fmt::print(stderr, "rows_bench: {}\n", status.message());
  return status.ok() ? 0 : 1;
}
