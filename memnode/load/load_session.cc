#include "memnode/load/load_session.h"

#include <fmt/format.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "common/client/local_table.h"
#include "common/client/lookup/client.h"
#include "common/client/lookup/config.h"
#include "memnode/load/instant_sources.h"
#include "memnode/load/node_metrics.h"
#include "memnode/load/progress.h"
#include "memnode/load/step_makers.h"

namespace engram::memnode::load {
namespace {

// Steps one run can ask for, so that no more ids are made than are used.
uint64_t StepsNeeded(const LoadOptions& options) {
  const bool one_rate = options.run.arrivals != Arrivals::kClosed && !options.knee.enabled &&
                        options.sweep.rates.empty() && options.sweep.tokens.empty() &&
                        options.plot_file.empty();
  if (!one_rate) return UINT64_MAX;
  const double steps =
      options.run.steps_per_s * (options.run.warm_up_seconds + options.run.seconds);
  return static_cast<uint64_t>(steps * 1.1) + 100;
}

Result<std::unique_ptr<client::LookupClient>> ConnectService(const ServiceOptions& options,
                                                             const LoadTables& tables) {
  client::LookupConfig config;
  config::Fields fields;
  config.Describe(fields);
  RETURN_IF_ERROR(config::Load("", options.sets, fields));
  config.memnodes = options.memnodes;
  RETURN_IF_ERROR(config.Validate());
  ASSIGN_OR_RETURN(client::LookupClientOptions client_options, config.Options());
  client_options.identity = tables.identity;
  return client::LookupClient::Connect(client_options, tables.layout);
}

}  // namespace

Result<std::unique_ptr<LoadSession>> LoadSession::Open(const LoadOptions& options,
                                                       const std::atomic<bool>* stop) {
  std::unique_ptr<LoadSession> session(new LoadSession(options, stop));
  ASSIGN_OR_RETURN(session->tables_, OpenTables(options.tables, options.run.verify_rate > 0));
  RETURN_IF_ERROR(session->Reshape(options.shape));
  RETURN_IF_ERROR(session->Connect());
  return session;
}

Status LoadSession::Connect() {
  if (!options_.service.memnodes.empty()) {
    ASSIGN_OR_RETURN(std::unique_ptr<client::LookupClient> cluster,
                     ConnectService(options_.service, tables_));
    paths_ = cluster->DescribePaths();
    service_ = std::move(cluster);
  } else if (!tables_.model_dir.empty()) {
    ASSIGN_OR_RETURN(io::Checkpoint opened, io::Checkpoint::Open(tables_.model_dir));
    checkpoint_ = std::make_unique<io::Checkpoint>(std::move(opened));
    ASSIGN_OR_RETURN(service_,
                     client::LocalTable::Open(checkpoint_.get(), tables_.layout, tables_.identity));
  } else {
    service_ = MakeReferenceSource(tables_.identity, *tables_.reference);
  }
  return OkStatus();
}

Status LoadSession::Reshape(const StepShape& shape) {
  StepShape made = shape;
  ASSIGN_OR_RETURN(const std::unique_ptr<StepMaker> maker,
                   MakeSteps(options_.source, tables_, &made));
  pool_.reset();  // before the next, so that there is one at a time
  ASSIGN_OR_RETURN(IdPool pool, IdPool::Make(*maker, tables_.layout, made, options_.source.pool_mib,
                                             StepsNeeded(options_), options_.source.record_file));
  pool_ = std::make_unique<IdPool>(std::move(pool));
  return OkStatus();
}

RunParts LoadSession::Parts() const {
  return {.layout = &tables_.layout,
          .pool = pool_.get(),
          .service = service_.get(),
          .reference = tables_.reference.get()};
}

Result<RunFigures> LoadSession::Run(const RunSettings& settings) {
  Host host = RealHost();
  host.stop = stop_;
  std::optional<Progress> progress;
  if (options_.progress || isatty(STDERR_FILENO) == 1) {
    progress.emplace(settings.seconds);
    host.on_second = [&progress](const SecondFigures& second) { progress->Show(second); };
  }
  double node_cpu_before = 0;
  if (!options_.node_metrics.empty()) {
    ASSIGN_OR_RETURN(node_cpu_before, NodeCpuSeconds(options_.node_metrics));
  }
  ASSIGN_OR_RETURN(RunFigures figures, RunLoad(settings, Parts(), host));
  if (!options_.node_metrics.empty()) {
    // A node that died under load is in the errors; its CPU time is not known.
    const Result<double> after = NodeCpuSeconds(options_.node_metrics);
    if (after.ok()) figures.node_cpu_seconds = *after - node_cpu_before;
  }
  return figures;
}

Result<double> LoadSession::MeasureOwnRate() {
  const std::unique_ptr<client::RowSource> no_op = MakeNoOpSource(tables_.identity);
  RunParts parts = Parts();
  parts.service = no_op.get();
  RunSettings settings = options_.run;
  settings.arrivals = Arrivals::kClosed;
  settings.verify_rate = 0;
  settings.warm_up_seconds = 0.05;
  settings.seconds = 0.25;
  Host host = RealHost();
  host.stop = stop_;
  ASSIGN_OR_RETURN(const RunFigures figures, RunLoad(settings, parts, host));
  return figures.steps_per_s();
}

}  // namespace engram::memnode::load
