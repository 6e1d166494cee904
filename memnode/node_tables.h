// Everything a node knows about tables: the store, the versions in it, which of them are served,
// how much memory they have, and who looks after their bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/obs/metrics.h"
#include "memnode/config.h"
#include "memnode/row_store.h"
#include "memnode/served_tables.h"

namespace engram::memnode {

class NodeTables {
 public:
  // Opens the store, imports the model the config names where that is missing, and loads what is to
  // be served. Or computes procedural tables. `config` and `metrics` outlive it.
  static Result<std::unique_ptr<NodeTables>> Open(const NodeConfig& config, obs::Metrics& metrics);
  ~NodeTables();

  struct Found {
    std::shared_ptr<const ServedTables> tables;
    uint64_t generation = 0;  // of its publication; 0: none
  };
  // The tables a client asks for; an empty version means the published one. Any thread.
  // FAILED_PRECONDITION says what there is.
  Result<Found> Find(const std::string& model, const std::string& version) const;
  // What the config names: the only tables that are readable one-sidedly.
  const std::shared_ptr<const ServedTables>& main() const { return main_; }

 private:
  NodeTables(const NodeConfig& config, obs::Metrics& metrics)
      : config_(config), metrics_(metrics) {}
  Status OpenProcedural();
  Status OpenStore();
  Result<std::shared_ptr<const ServedTables>> Load(const Manifest& manifest);
  OpenTablesOptions TablesOptions(const Manifest& manifest);
  void TellOpen(const ServedTables& tables, double seconds);
  ArenaOptions Memory() const;

  const NodeConfig& config_;
  obs::Metrics& metrics_;
  std::unique_ptr<RowStore> store_;  // null: procedural
  std::shared_ptr<const ServedTables> main_;
};

}  // namespace engram::memnode
