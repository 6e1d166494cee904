#include "memnode/node/admin_service.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "common/checkpoint/model_tables.h"
#include "common/checkpoint/table_source.h"
#include "memnode/cluster/peers.h"
#include "memnode/node/status_reply.h"
#include "memnode/store/import_progress.h"
#include "memnode/store/table_plan.h"
#include "memnode/upkeep/row_description.h"
#include "memnode/upkeep/verify_report.h"

namespace engram::memnode {
namespace {

constexpr std::string_view kWhat = "request";
constexpr uint64_t kThreadsMax = 1024;
constexpr uint64_t kMemoryMibMax = 1 << 20;
constexpr size_t kNameBytesMax = 4096;  // also of a path

Result<uint64_t> GetNumber(const json::object& request, std::string_view key) {
  ASSIGN_OR_RETURN(const std::string text, io::GetString(request, key, kWhat));
  uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() && !text.empty()) {
    return value;
  }
  return InvalidArgument(
      fmt::format("request: {} is \"{}\", expected a number as text", key, text));
}

Result<std::string> GetName(const json::object& request, std::string_view key) {
  ASSIGN_OR_RETURN(std::string text, io::GetString(request, key, kWhat));
  if (!text.empty() && text.size() <= kNameBytesMax && text.find('\n') == std::string::npos) {
    return text;
  }
  return InvalidArgument(
      fmt::format("request: {} must be one line of 1..{} bytes", key, kNameBytesMax));
}

// Neither part has a line break.
std::string SubjectOf(const std::string& model, const std::string& version) {
  return model + "\n" + version;
}

Result<json::object> Done(const Status& status) {
  if (!status.ok()) return status;
  return json::object();
}

json::object ToJson(const Damage& damage) {
  json::object object = {{"table_set", fmt::format("{:016x}", damage.table_set)},
                         {"layer_index", damage.layer_index},
                         {"partition", damage.partition},
                         {"why", damage.why}};
  if (damage.page) object["page"] = std::to_string(*damage.page);
  return object;
}

}  // namespace

AdminService::AdminService(VersionManager& versions, RowStore& store, const LoadedTables& loaded,
                           Upkeep& upkeep, table::ClusterMap map, std::string member)
    : versions_(versions),
      store_(store),
      loaded_(loaded),
      upkeep_(upkeep),
      map_(std::move(map)),
      member_(std::move(member)) {}

constexpr AdminService::Command AdminService::kCommands[] = {
    {"versions", kNothing, false, &AdminService::Versions},
    {"damage", kNothing, false, &AdminService::DamageNow},
    {"job", kNothing, false, &AdminService::LookAtJob},
    {"cancel", kNothing, false, &AdminService::CancelJob},
    {"reserve", kNothing, false, &AdminService::Reserve},
    {"release", kNothing, false, &AdminService::Release},
    {"import", kTarget, true, &AdminService::Import},
    {"pin", kTarget, true, &AdminService::Pin},
    {"unpin", kTarget, false, &AdminService::Unpin},
    {"verify", kTarget, false, &AdminService::Verify},
    {"row", kTarget, false, &AdminService::Row},
    {"manifest", kTarget, false, &AdminService::ManifestText},
    {"drop", kReservation, true, &AdminService::Drop},
    {"may_drop", kReservation, false, &AdminService::MayDrop},
    {"prepare", kGeneration, true, &AdminService::Prepare},
    {"renew", kGeneration, false, &AdminService::Renew},
    {"promise", kGeneration, true, &AdminService::Promise},
    {"commit", kGeneration, false, &AdminService::Commit},
    {"abort", kGeneration, false, &AdminService::Abort},
};

Result<json::object> AdminService::Call(const json::object& json) {
  ASSIGN_OR_RETURN(const std::string name, io::GetString(json, "command", kWhat));
  const auto* const command = std::ranges::find(kCommands, name, &Command::name);
  if (command == std::end(kCommands)) {
    return InvalidArgument(fmt::format("request: command \"{:.64}\" is not known here", name));
  }
  Request request{.json = json, .target = {}};
  if (command->needs >= kTarget) {
    ASSIGN_OR_RETURN(request.target.model, GetName(json, "name"));
    ASSIGN_OR_RETURN(request.target.version, GetName(json, "version"));
  }
  if (command->needs >= kGeneration) {
    ASSIGN_OR_RETURN(request.generation, GetNumber(json, "generation"));
  }
  if (command->changes_versions) RETURN_IF_ERROR(CheckUnchanged());
  if (command->needs >= kReservation) {
    RETURN_IF_ERROR(CheckReserved(request.target.model, json));
  }
  return (this->*command->carry_out)(request);
}

void AdminService::Follow(const table::ClusterMap& map, const std::string& change) {
  const std::lock_guard lock(map_mutex_);
  map_ = map;
  change_ = change;
}

table::ClusterMap AdminService::map() const {
  const std::lock_guard lock(map_mutex_);
  return map_;
}

Status AdminService::CheckUnchanged() const {
  const std::lock_guard lock(map_mutex_);
  if (change_.empty()) return OkStatus();
  return FailedPrecondition(fmt::format(
      "the cluster is being changed ({}): wait until that has ended, or engramctl cancel",
      change_));
}

Status AdminService::CheckQuiet() const {
  if (const std::string title = jobs_.FirstRunning(); !title.empty()) {
    return FailedPrecondition(fmt::format("{} is under way here: wait for it, or stop it", title));
  }
  for (const VersionInfo& info : versions_.List()) {
    if (info.prepared_generation == 0 && info.promised_generation == 0) continue;
    return FailedPrecondition(
        fmt::format("version {} of {} is being published: wait for that, publish it again, or "
                    "engramctl abort",
                    info.version, info.model));
  }
  return OkStatus();
}

Result<json::object> AdminService::ManifestText(const Request& request) {
  ASSIGN_OR_RETURN(const uint64_t offset, GetNumber(request.json, "offset"));
  const auto& [model, version] = request.target;
  ASSIGN_OR_RETURN(const auto manifest, FindManifest(store_, model, version));
  if (manifest) return ManifestPart(*manifest, offset);
  return NotFound(fmt::format("version {} of {} is not complete here", version, model));
}

Result<json::object> AdminService::LookAtJob(const Request& request) {
  ASSIGN_OR_RETURN(const std::string job, GetName(request.json, "job"));
  return jobs_.Look(job);
}

Result<json::object> AdminService::CancelJob(const Request& request) {
  ASSIGN_OR_RETURN(const std::string job, GetName(request.json, "job"));
  return Done(jobs_.Cancel(job));
}

Result<json::object> AdminService::Reserve(const Request& request) {
  ASSIGN_OR_RETURN(const std::string model, GetName(request.json, "name"));
  ASSIGN_OR_RETURN(const std::string token, GetName(request.json, "token"));
  ASSIGN_OR_RETURN(const std::string holder, GetName(request.json, "holder"));
  return Done(reservations_.Take(model, token, holder));
}

Result<json::object> AdminService::Release(const Request& request) {
  ASSIGN_OR_RETURN(const std::string model, GetName(request.json, "name"));
  ASSIGN_OR_RETURN(const std::string token, GetName(request.json, "token"));
  reservations_.Release(model, token);
  return json::object();
}

Result<json::object> AdminService::Unpin(const Request& request) {
  return Done(versions_.Unpin(request.target.model, request.target.version));
}

Result<json::object> AdminService::MayDrop(const Request& request) {
  const auto& [model, version] = request.target;
  RETURN_IF_ERROR(jobs_.CheckFree("drop", {SubjectOf(model, version)}));
  return Done(versions_.CheckDrop(model, version));
}

Result<json::object> AdminService::Renew(const Request& request) {
  const auto& [model, version] = request.target;
  return Done(versions_.Renew(model, version, request.generation));
}

Result<json::object> AdminService::Promise(const Request& request) {
  const auto& [model, version] = request.target;
  return Done(versions_.Promise(model, version, request.generation));
}

Result<json::object> AdminService::Commit(const Request& request) {
  const auto& [model, version] = request.target;
  bool rollback = false;
  if (request.json.contains("rollback")) {
    ASSIGN_OR_RETURN(rollback, io::GetBool(request.json, "rollback", kWhat));
  }
  return Done(versions_.Commit(model, version, request.generation, rollback));
}

Result<json::object> AdminService::Abort(const Request& request) {
  const auto& [model, version] = request.target;
  return Done(versions_.Abort(model, version, request.generation));
}

Status AdminService::CheckReserved(const std::string& model, const json::object& request) const {
  std::string token;
  if (request.contains("token")) {
    ASSIGN_OR_RETURN(token, GetName(request, "token"));
  }
  return reservations_.Check(model, token);
}

// The key is of parts that no name can run together.
Result<json::object> AdminService::StartJob(const std::vector<std::string>& key,
                                            const std::string& title,
                                            const std::vector<Target>& changed, Jobs::Work work) {
  std::vector<std::string> subjects;
  for (const Target& target : changed) {
    subjects.push_back(SubjectOf(target.model, target.version));
  }
  ASSIGN_OR_RETURN(const std::string job, jobs_.Start(fmt::format("{}", fmt::join(key, "\n")),
                                                      title, subjects, std::move(work)));
  return json::object{{"job", job}};
}

Result<json::object> AdminService::Versions(const Request&) {
  ASSIGN_OR_RETURN(const auto stored, store_.AllPageBytes());
  std::vector<VersionInfo> all = versions_.List();
  ASSIGN_OR_RETURN(const std::vector<IncompleteImport> incomplete, IncompleteImports(store_));
  for (const IncompleteImport& import : incomplete) {
    VersionInfo& info = all.emplace_back();
    info.model = import.model;
    info.version = import.version;
    info.incomplete = true;
  }
  const table::ClusterMap map_now = map();
  json::array versions;
  for (const VersionInfo& info : all) {
    const TableSetId id = TableSetIdOf(info.model, info.version);
    const auto bytes = stored.find(id);
    const TablesPtr tables = loaded_.Find(id);
    versions.push_back(
        VersionJson(info, bytes == stored.end() ? 0 : bytes->second,
                    tables == nullptr ? ServedTables::Resident() : tables->resident()));
  }
  return json::object{{"member", member_},
                      {"instance", jobs_.instance()},
                      {"epoch", map_now.epoch},
                      {"members", json::value_from(map_now.members)},
                      {"versions", std::move(versions)}};
}

Result<json::object> AdminService::Import(const Request& asked) {
  const Target& target = asked.target;
  const json::object& request = asked.json;
  ASSIGN_OR_RETURN(const std::string path, GetName(request, "model_path"));
  ImportOptions options;
  options.source = path;
  std::vector<Target> changed = {target};
  if (request.contains("base")) {
    ASSIGN_OR_RETURN(options.base_version, GetName(request, "base"));
    changed.push_back({target.model, options.base_version});
  }
  if (request.contains("threads")) {
    ASSIGN_OR_RETURN(const uint64_t threads, GetNumber(request, "threads"));
    options.threads = static_cast<int>(std::min(threads, kThreadsMax));
  }
  if (request.contains("memory_mib")) {
    ASSIGN_OR_RETURN(const uint64_t memory_mib, GetNumber(request, "memory_mib"));
    options.memory_mib = std::min(memory_mib, kMemoryMibMax);
  }
  std::string title = fmt::format("import {} version {}", target.model, target.version);
  if (!options.base_version.empty()) title += " on " + options.base_version;
  return StartJob({"import", target.model, target.version, options.base_version, path},
                  title + " from " + path, changed,
                  [this, target, path, options](JobContext& context) {
                    return RunImport(target, path, options, context);
                  });
}

Result<json::object> AdminService::RunImport(const Target& target, const std::string& path,
                                             ImportOptions options, JobContext& context) {
  RETURN_IF_ERROR(EndDrop(store_, target.model, target.version).status());
  ASSIGN_OR_RETURN(const client::ModelTables model,
                   client::LoadModelTables(path, target.model, target.version));
  ASSIGN_OR_RETURN(const auto source, client::OpenTableSource(path, model));
  const table::ClusterMap map_now = map();
  if (std::ranges::count(map_now.members, member_) == 0) {
    return FailedPrecondition(
        fmt::format("{} is no member of the cluster (engramctl add)", member_));
  }
  ASSIGN_OR_RETURN(const TablePlan plan, MakePlan(model.identity, map_now, member_));
  ImportProgress last;
  options.cancel = &context.cancelled();
  options.on_progress = [&](const ImportProgress& progress) {
    last = progress;
    context.Tell(progress.rows_done, progress.rows_total, progress.bytes_read);
  };
  ASSIGN_OR_RETURN(const Manifest manifest,
                   ImportTables(*source, model.identity, map_now, plan, store_, options));
  versions_.Imported(manifest);
  upkeep_.Refresh();
  return json::object{{"digest", manifest.identity.content_digest},
                      {"rows", std::to_string(plan.OwnedRows())},
                      {"bytes_read", std::to_string(last.bytes_read)},
                      {"bytes_written", std::to_string(last.bytes_written)},
                      {"pages_changed", std::to_string(last.pages_changed)}};
}

Result<json::object> AdminService::Prepare(const Request& request) {
  const Target& target = request.target;
  const uint64_t generation = request.generation;
  return StartJob(
      {"prepare", target.model, target.version, std::to_string(generation)},
      fmt::format("prepare {} version {} generation {}", target.model, target.version, generation),
      {target}, [this, target, generation](JobContext& context) -> Result<json::object> {
        RETURN_IF_ERROR(
            versions_.Prepare(target.model, target.version, generation, &context.cancelled()));
        return json::object();
      });
}

Result<json::object> AdminService::Pin(const Request& request) {
  const Target& target = request.target;
  return StartJob(
      {"pin", target.model, target.version},
      fmt::format("pin {} version {}", target.model, target.version), {target},
      [this, target](JobContext& context) -> Result<json::object> {
        RETURN_IF_ERROR(versions_.Pin(target.model, target.version, &context.cancelled()));
        return json::object();
      });
}

Result<json::object> AdminService::Drop(const Request& request) {
  const Target& target = request.target;
  return StartJob({"drop", target.model, target.version},
                  fmt::format("drop {} version {}", target.model, target.version), {target},
                  [this, target](JobContext&) -> Result<json::object> {
                    const Status dropped = versions_.Drop(target.model, target.version);
                    upkeep_.Refresh();
                    if (!dropped.ok() && dropped.code() != Code::kNotFound) return dropped;
                    return json::object{{"dropped", dropped.ok()}};
                  });
}

Result<json::object> AdminService::Verify(const Request& request) {
  const Target& target = request.target;
  return StartJob({"verify", target.model, target.version},
                  fmt::format("verify {} version {}", target.model, target.version), {},
                  [this, target](JobContext& context) -> Result<json::object> {
                    VerifyOptions options;
                    options.cancel = &context.cancelled();
                    options.on_damage = [this](TableSetId id, uint32_t layer, uint64_t page) {
                      upkeep_.CheckPage(id, layer, page);
                    };
                    options.on_progress = [&](const VerifyProgress& progress) {
                      context.Tell(progress.pages_done, progress.pages_total);
                    };
                    return VerifyVersion(store_, target.model, target.version, options);
                  });
}

Result<json::object> AdminService::Row(const Request& request) {
  const Target& target = request.target;
  ASSIGN_OR_RETURN(const uint64_t layer, GetNumber(request.json, "layer"));
  ASSIGN_OR_RETURN(const uint64_t row, GetNumber(request.json, "row"));
  if (layer > static_cast<uint64_t>(std::numeric_limits<int>::max())) {
    return InvalidArgument(fmt::format("request: there is no layer {}", layer));
  }
  return DescribeStoredRow(store_, target.model, target.version, static_cast<int>(layer), row);
}

Result<json::object> AdminService::DamageNow(const Request&) {
  json::array list;
  for (const Damage& damage : upkeep_.damage()) list.push_back(ToJson(damage));
  return json::object{{"damage", std::move(list)}};
}

}  // namespace engram::memnode
