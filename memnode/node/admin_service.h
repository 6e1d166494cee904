// What a tool can ask of a node (common/net/control/admin.h): looks at and changes versions. Long
// work is a job, asked about by its name.
//
//   {"command": "status"}                   -> status_reply.h
//   {"command": "versions"}                 -> member, instance, epoch, members, versions
//   {"command": "import", "model_path", "name", "version",
//    "base", "threads", "memory_mib"}                        -> job
//   {"command": "reserve", "name", "token", "holder"}        -> {}  (reservations.h)
//   {"command": "release", "name", "token"}                  -> {}
//   {"command": "prepare", "name", "version", "generation"}  -> job
//   {"command": "renew" | "promise" | "commit" | "abort", the same} -> {}
//   {"command": "pin" | "drop" | "verify", "name", "version"} -> job
//                                 (the result of drop: {"dropped": false} where there was none)
//   {"command": "may_drop", "name", "version"}               -> {}, or what keeps it
//   {"command": "unpin", "name", "version"}                  -> {}
//   {"command": "row", "name", "version", "layer", "row"}    -> row_description.h
//   {"command": "manifest", "name", "version", "offset"}     -> cluster/peers.h
//   {"command": "damage"}                                    -> what is damaged now
//   {"command": "job" | "cancel", "job"}                     -> jobs.h
//
// Where a tool has reserved the model, prepare, renew, promise, commit, abort and drop are
// refused unless their "token" is that tool's. 64-bit numbers travel as decimal strings. A job that
// changes a version is refused while another one does. No call waits for a job; several wait for
// the disk, so that the control server has a thread for them (control.h). "status" waits for
// neither and is told of every node, one that loads or has procedural tables too: node.h answers
// it, and "cluster" and "propose". While the cluster's map is changed, what would change versions
// is refused.
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/io/json.h"
#include "common/table/placement.h"
#include "memnode/node/jobs.h"
#include "memnode/node/reservations.h"
#include "memnode/node/version_manager.h"
#include "memnode/store/row_store.h"
#include "memnode/tables/loaded_tables.h"
#include "memnode/upkeep/importer.h"
#include "memnode/upkeep/upkeep.h"

namespace engram::memnode {

class AdminService {
 public:
  // All outlive it.
  AdminService(VersionManager& versions, RowStore& store, const LoadedTables& loaded,
               Upkeep& upkeep, table::ClusterMap map, std::string member);

  // INVALID_ARGUMENT names the command or key at fault; else the operation's own error.
  Result<json::object> Call(const json::object& request);
  const Reservations& reservations() const { return reservations_; }

  // The map that imports go by from now on, and the change that is under way ("": none). Any
  // thread.
  void Follow(const table::ClusterMap& map, const std::string& change);
  // FAILED_PRECONDITION names a job or a publication under way, which the change of a map would
  // disturb.
  Status CheckQuiet() const;

 private:
  struct Target {
    std::string model, version;
  };
  struct Request {
    const json::object& json;
    Target target;
    uint64_t generation = 0;
  };
  enum Needs { kNothing, kTarget, kReservation, kGeneration };  // each with those before it
  struct Command {
    std::string_view name;
    Needs needs;
    bool changes_versions;  // refused while the map is changed
    Result<json::object> (AdminService::*carry_out)(const Request& request);
  };
  static const Command kCommands[];

  Result<json::object> Versions(const Request& request);
  Result<json::object> DamageNow(const Request& request);
  Result<json::object> LookAtJob(const Request& request);
  Result<json::object> CancelJob(const Request& request);
  Result<json::object> Reserve(const Request& request);
  Result<json::object> Release(const Request& request);
  Result<json::object> Import(const Request& request);
  Result<json::object> Pin(const Request& request);
  Result<json::object> Unpin(const Request& request);
  Result<json::object> Verify(const Request& request);
  Result<json::object> Row(const Request& request);
  Result<json::object> Drop(const Request& request);
  Result<json::object> MayDrop(const Request& request);
  Result<json::object> Prepare(const Request& request);
  Result<json::object> Renew(const Request& request);
  Result<json::object> Promise(const Request& request);
  Result<json::object> Commit(const Request& request);
  Result<json::object> Abort(const Request& request);
  Status CheckReserved(const std::string& model, const json::object& request) const;
  Result<json::object> StartJob(const std::vector<std::string>& key, const std::string& title,
                                const std::vector<Target>& changed, Jobs::Work work);
  Result<json::object> RunImport(const Target& target, const std::string& path,
                                 ImportOptions options, JobContext& context);

  VersionManager& versions_;
  RowStore& store_;
  const LoadedTables& loaded_;
  Upkeep& upkeep_;
  table::ClusterMap map() const;
  Status CheckUnchanged() const;
  Result<json::object> ManifestText(const Request& request);

  mutable std::mutex map_mutex_;
  table::ClusterMap map_;  // guarded by map_mutex_
  std::string change_;     // guarded by map_mutex_
  const std::string member_;
  Reservations reservations_;
  Jobs jobs_;  // last: its threads use the rest
};

}  // namespace engram::memnode
