// peers_bench: our row service beside Redis, memcached and RocksDB, same rows, same ids.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "tests/bench/peers/compare.h"

using namespace engram;

int main(int argc, char** argv) {
  bench::CompareOptions options;
  CLI::App app(
      "Batched row lookups: our node, Redis MGET, memcached multi-get, RocksDB MultiGet.\n"
      "Same 264-byte rows, same ids, one server core, one client core, interleaved rounds.");
  app.add_option("--rows", options.rows, "rows held, of both layers")
      ->check(CLI::Range(1000, 100'000'000))
      ->capture_default_str();
  app.add_option("--batches", options.batches, "rows a batch, even")
      ->delimiter(',')
      ->check(CLI::Range(2, 12288))
      ->capture_default_str();
  app.add_option("--depth", options.depth, "batches outstanding")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds.rounds, "of all legs")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seconds", options.rounds.seconds, "of a leg in a round")
      ->check(CLI::Range(0.01, 60.0))
      ->capture_default_str();
  app.add_option("--warm-up", options.rounds.warm_up_seconds, "seconds a leg, all rows compared")
      ->check(CLI::Range(0.0, 60.0))
      ->capture_default_str();
  app.add_option("--verify-every", options.verify_every,
                 "compare every n-th row when timed; 0: none")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of rows and ids")->capture_default_str();
  app.add_option("--only", options.only, "engram,redis,memcached,memcached-meta,rocksdb")
      ->delimiter(',');
  app.add_option("--transport", options.transport, "of engram: tcp or ucx")->capture_default_str();
  app.add_option("--server-cpu", options.cores.server, "core of the servers")
      ->capture_default_str();
  app.add_option("--client-cpu", options.cores.client, "core of the client")->capture_default_str();
  app.add_option("--json", options.json_file, "write the figures here");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    fmt::print(stderr, "peers_bench: {}\n", error.what());
    return 1;
  }
  bench::CatchInterrupts();
  const Status status = bench::Compare(options);
  if (!status.ok()) fmt::print(stderr, "peers_bench: {}\n", status.message());
  return status.ok() ? 0 : 1;
}
