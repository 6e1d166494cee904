// engram-compute: serve, generate and score with an engram_v3 model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "common/obs/log.h"
#include "compute/tools/generate.h"
#include "compute/tools/options.h"
#include "compute/tools/score.h"
#include "compute/tools/serve.h"

using namespace engram;

int main(int argc, char** argv) {
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
  CLI::App* serve = app.add_subcommand("serve", "answer OpenAI's API over HTTP");
  common.AddTo(*serve);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    fmt::print(stderr, "engram-compute: {}\n", error.what());
    return 1;
  }

  const auto run = [&]() -> Status {
    ASSIGN_OR_RETURN(const compute::ComputeConfig config, common.Resolve());
    RETURN_IF_ERROR(obs::InitLog("engram-compute", config.log_level));
    if (*serve) return compute::RunServe(config);
    return *generate ? compute::RunGenerate(config, options)
                     : compute::RunScore(config, input, output);
  };
  const Status status = run();
  if (!status.ok()) fmt::print(stderr, "engram-compute: {}\n", status.message());
  return status.ok() ? 0 : 1;
}
