#include "compute/commands/options.h"

#include <fmt/format.h>

#include <sstream>

namespace engram::compute {

void CommonOptions::AddTo(CLI::App& app) {
  app.add_option("--model", model, "folder of the checkpoint");
  app.add_option("--memnodes", memnodes, "memory nodes, host:port[,host:port...]");
  app.add_flag("--local", local, "read the tables in this process");
  app.add_option("--config", config_file, "YAML file of settings");
  app.add_option("--set", sets, "one setting, a.b=value; may be repeated")->expected(1)->take_all();
}

Result<ComputeConfig> CommonOptions::Resolve() const {
  ComputeConfig config;
  config::Fields fields;
  config.Describe(fields);
  RETURN_IF_ERROR(config::Load(config_file, sets, fields));
  if (!model.empty()) config.model_path = model;
  if (memnodes) {
    config.lookup.memnodes.clear();
    std::istringstream list(*memnodes);
    for (std::string address; std::getline(list, address, ',');)
      config.lookup.memnodes.push_back(address);
    if (config.lookup.memnodes.empty()) {
      return InvalidArgument(
          "--memnodes \"\" names no memory node; for the tables in this process give --local "
          "instead");
    }
  }
  if (config.model_path.empty())
    return InvalidArgument("no model: give --model DIR or set model.path");
  if (local && !config.lookup.memnodes.empty()) {
    return InvalidArgument(
        fmt::format("--local and memory nodes ({}) exclude each other", config.lookup.memnodes[0]));
  }
  return config;
}

}  // namespace engram::compute
