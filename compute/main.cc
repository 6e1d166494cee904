// engram-compute: serve, generate and score with an engram_v3 model.
#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <memory>

#include "common/base/standard_streams.h"
#include "common/obs/log.h"
#include "compute/commands/batch.h"
#include "compute/commands/bench.h"
#include "compute/commands/generate.h"
#include "compute/commands/options.h"
#include "compute/commands/score.h"
#include "compute/commands/serve.h"
#include "compute/parallel/mpi_collective.h"
#include "compute/session/session.h"

using namespace engram;

namespace {

// Ends when rank 0 does, which answers what it has begun before it ends for a signal.
Status RunFollower(const compute::ComputeConfig& config, parallel::Collective& ranks) {
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  return compute::Session::RunFollower(config, ranks);
}

int Run(int argc, char** argv) {
  CLI::App app("Transformer engine whose Engram tables live in memory nodes");
  app.require_subcommand(1);
  compute::CommonOptions common;
  compute::GenerateOptions options;
  std::string input, output;

  CLI::App* generate = app.add_subcommand("generate", "complete one prompt");
  common.AddTo(*generate);
  CLI::Option* prompt = generate->add_option("--prompt", options.prompt, "text to complete");
  generate->add_option("--prompt-file", options.prompt_file, "file of the text")->excludes(prompt);
  generate->add_option("--max-tokens", options.tokens_max, "tokens to generate")
      ->check(CLI::PositiveNumber);
  generate->add_option("--temperature", options.temperature, "0: greedy")
      ->check(CLI::Range(0.0, 1000.0));
  generate->add_option("--seed", options.seed, "of the sampling");
  generate->add_flag("--ignore-eos", options.ignore_eos, "go on past the end-of-text token");
  generate->add_option("--json", options.json_file,
                       "write tokens, log-probabilities and figures here");
  CLI::App* score = app.add_subcommand("score", "log-probabilities of token lists");
  common.AddTo(*score);
  score->add_option("--input", input, "lines of {\"tokens\":[...]}")->required();
  score->add_option("--output", output, "lines of {\"logprobs\":[null,...]}")->required();
  CLI::App* batch = app.add_subcommand("batch", "answer a file of completion requests");
  common.AddTo(*batch);
  batch->add_option("--input", input, "lines of /v1/completions bodies, one prompt each")
      ->required();
  batch->add_option("--output", output, "lines of answers, in order")->required();
  CLI::App* serve = app.add_subcommand("serve", "answer OpenAI's API over HTTP");
  common.AddTo(*serve);
  compute::BenchOptions bench_options;
  CLI::App* bench = app.add_subcommand("bench", "load the engine in this process and time it");
  common.AddTo(*bench);
  bench
      ->add_option("--rates", bench_options.rates, "open loops: requests a second, comma separated")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  bench->add_option("--concurrency", bench_options.concurrencies, "closed loops: requests at once")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  bench->add_option("--requests", bench_options.requests, "of each loop")
      ->check(CLI::PositiveNumber);
  bench->add_option("--prompt-tokens", bench_options.prompt_tokens, "128, or a range: 64:512");
  bench->add_option("--output-tokens", bench_options.output_tokens, "64, or a range: 16:256");
  bench
      ->add_option("--contexts", bench_options.contexts,
                   "prompt lengths, comma separated: one request at a time of each")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  bench->add_option("--text", bench_options.text_file, "prompts are pieces of this file");
  bench->add_option("--seed", bench_options.seed, "of prompts and arrivals");
  bench->add_option("--compare", bench_options.compare, "local,remote: alternate and give ratios");
  bench->add_option("--rounds", bench_options.rounds, "of --compare")->check(CLI::PositiveNumber);
  bench->add_option("--json", bench_options.json_file, "write every figure here");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    PrintError("engram-compute", error.what());
    return 1;
  }

  std::unique_ptr<parallel::Collective> processes;  // null: one process
  const auto run = [&]() -> Status {
    ASSIGN_OR_RETURN(const compute::ComputeConfig config, common.Resolve());
    RETURN_IF_ERROR(obs::InitLog("engram-compute", config.log_level));
    if (parallel::UnderMpi()) {
      ASSIGN_OR_RETURN(processes,
                       parallel::OpenMpi(std::chrono::milliseconds(config.rank_timeout_ms)));
    }
    parallel::Collective& ranks = processes ? *processes : parallel::Solo();
    if (ranks.rank() > 0) return RunFollower(config, ranks);
    if (*bench) return compute::RunBench(config, bench_options, ranks);
    if (*batch) return compute::RunBatch(config, input, output, ranks);
    if (*serve) return compute::RunServe(config, ranks);
    return *generate ? compute::RunGenerate(config, options, ranks)
                     : compute::RunScore(config, input, output, ranks);
  };
  const Status status = run();
  if (status.ok()) return 0;
  obs::FlushLog(std::chrono::seconds(1));  // what led to the error stands before it
  PrintError("engram-compute", status.message());
  if (processes) parallel::AbortMpi(1);  // the others would wait
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  return RunProgram("engram-compute", [&] { return Run(argc, argv); });
}
