// engram-memnode: serves its share of a model's Engram tables.
#include <CLI/CLI.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "common/base/standard_streams.h"
#include "common/obs/log.h"
#include "memnode/node/run.h"

using namespace engram;

namespace {

int Run(int argc, char** argv) {
  CLI::App app("Serves this node's share of a model's Engram tables out of memory");
  std::string config_file;
  std::vector<std::string> sets;
  app.add_option("--config", config_file, "YAML file of settings (configs/memnode.yaml)");
  app.add_option("--set", sets, "one setting, a.b=value; may be repeated")->expected(1)->take_all();
  CLI11_PARSE(app, argc, argv);
  memnode::NodeConfig config;
  config::Fields fields;
  config.Describe(fields);
  Status status = config::Load(config_file, sets, fields);
  if (status.ok()) status = memnode::RunUntilSignal(config, {argv, argv + argc});
  if (status.ok()) return 0;
  obs::FlushLog(std::chrono::seconds(1));  // what led to the error stands before it
  PrintError("engram-memnode", status.message());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  return RunProgram("engram-memnode", [&] { return Run(argc, argv); });
}
