// The files in configs/ are the documentation of every key: they must parse, and equal the defaults
// word for word. To bring them up to date after changing a config struct: ENGRAM_WRITE_CONFIGS=1
// build/release/bin/configs_test
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "common/config/config.h"
#include "compute/session/config.h"
#include "memnode/node/config.h"
#include "tests/support/process.h"

namespace engram {
namespace {

template <typename Config>
void ExpectFileIsTheDefaults(const std::string& name, const std::string& intro) {
  const std::string path = std::string(ENGRAM_SOURCE_DIR) + "/configs/" + name;
  Config config;
  config::Fields fields;
  config.Describe(fields);
  const std::string defaults = intro + config::Dump(fields, /*with_help=*/true);
  if (std::getenv("ENGRAM_WRITE_CONFIGS") != nullptr) testing_support::WriteFile(path, defaults);
  EXPECT_EQ(testing_support::ReadFile(path), defaults);
  const Status status = config::Load(path, {}, fields);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(intro + config::Dump(fields, true), defaults);
}

TEST(Configs, MemnodeYamlIsEveryKeyWithItsDefault) {
  ExpectFileIsTheDefaults<memnode::NodeConfig>(
      "memnode.yaml",
      "# engram-memnode --config FILE: every key with its default; --set a.b=c overrides one.\n");
}

TEST(Configs, ComputeYamlIsEveryKeyWithItsDefault) {
  ExpectFileIsTheDefaults<compute::ComputeConfig>("compute.yaml",
                                                  "# engram-compute ... --config FILE: every key "
                                                  "with its default; --set a.b=c overrides one.\n");
}

}  // namespace
}  // namespace engram
