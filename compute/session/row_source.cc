#include "compute/session/row_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "common/client/local_table.h"
#include "common/client/lookup/content_check.h"
#include "common/obs/log.h"

namespace engram::compute {
namespace {

Result<OpenedRows> OpenLocal(const ComputeConfig& config, const io::Checkpoint& checkpoint,
                             const client::ModelTables& tables) {
  if (!config.content_digest.empty()) {
    obs::LogWarn(
        "engram.content_digest is not compared: the tables are read out of the model folder "
        "(engramctl digest prints the folder's)");
  }
  OpenedRows opened;
  ASSIGN_OR_RETURN(opened.source,
                   client::LocalTable::Open(&checkpoint, tables.layout, tables.identity));
  opened.tables.any = true;
  return opened;
}

// How much is known of tables that were connected to. Warns where it is not enough.
std::string Compared(const client::ContentComparison& content, const std::string& pinned,
                     const std::string& model_path) {
  const bool rows = content.layers_absent.empty();
  if (rows) return pinned.empty() ? "rows" : "rows+digest";
  if (!pinned.empty()) return content.rows > 0 ? "rows+digest" : "digest";
  obs::LogWarn(fmt::format(
      "content not compared: whether the memory nodes hold this model's tables is not known, for "
      "{} does not hold those of layer {}; have engramctl digest --write name their digest beside "
      "the model, or set engram.content_digest",
      model_path, fmt::join(content.layers_absent, ", ")));
  return "nothing";
}

Result<OpenedRows> OpenRemote(const ComputeConfig& config, const client::ModelTables& tables) {
  table::TableIdentity identity = tables.identity;
  ASSIGN_OR_RETURN(identity.content_digest,
                   client::PinnedDigest(config.model_path, config.content_digest));
  client::ContentComparison content;
  const auto check = [&](client::LookupClient& nodes) -> Status {
    if (!identity.content_digest.empty() && nodes.identity().content_digest.empty()) {
      return FailedPrecondition(
          fmt::format("the memory nodes tell no content digest, this engine insists on {} ({} or "
                      "engram.content_digest)",
                      identity.content_digest, client::kDigestFile));
    }
    const Nanos timeout = std::chrono::milliseconds(config.lookup.connect_timeout_ms);
    ASSIGN_OR_RETURN(content, client::CompareContent(nodes, config.model_path, tables, timeout));
    return OkStatus();
  };
  OpenedRows opened;
  ASSIGN_OR_RETURN(opened.source, config.lookup.Connect(tables.layout, identity, check));
  const table::TableIdentity& served = opened.source->identity();
  opened.tables = {true, true, served.version, served.content_digest,
                   Compared(content, identity.content_digest, config.model_path)};
  obs::LogInfo(fmt::format(
      "tables connected model={} version={} content_digest={} compared={} "
      "rows_compared={}",
      served.model, served.version, served.content_digest, opened.tables.compared, content.rows));
  return opened;
}

}  // namespace

Result<OpenedRows> OpenRowSource(const ComputeConfig& config, const io::Checkpoint& checkpoint,
                                 const client::ModelTables& tables) {
  return config.lookup.memnodes.empty() ? OpenLocal(config, checkpoint, tables)
                                        : OpenRemote(config, tables);
}

}  // namespace engram::compute
