// engramctl digest: the content digest of a model folder's tables, which an engine without them can
// insist on.
#pragma once

#include <string>

#include "common/base/status.h"
#include "memnode/ctl/subcommand.h"

namespace engram::ctl {

// As an import of the folder computes it. Reads every row. Errors as LoadModelTables and
// OpenTableSource.
Result<std::string> DigestOfFolder(const std::string& model_dir);

Subcommand AddDigestCommand(CLI::App& parent);

}  // namespace engram::ctl
