#include "compute/tools/session.h"

#include <fmt/format.h>

#include <filesystem>

#include "common/obs/log.h"
#include "compute/tools/row_source.h"

namespace engram::compute {

Session::~Session() = default;

Result<std::unique_ptr<Session>> Session::Open(const ComputeConfig& config) {
  std::unique_ptr<Session> session(new Session());
  RETURN_IF_ERROR(session->OpenModel(config));
  RETURN_IF_ERROR(session->OpenRows(config));
  session->pool_ = std::make_unique<kernels::Pool>(static_cast<int>(config.threads));
  session->prefetcher_ = std::make_unique<Prefetcher>(
      session->source_.get(), session->tables_.layout, session->tables_.map,
      PrefetchOptions{config.deadline_ms, config.verify});
  session->transformer_ = std::make_unique<Transformer>(
      session->model_, session->weights_, session->tables_.layout.row_format, *session->pool_);
  session->engine_ = std::make_unique<Engine>(session->model_, *session->transformer_,
                                              *session->prefetcher_, config.prefill_chunk);
  return session;
}

Status Session::OpenModel(const ComputeConfig& config) {
  std::error_code error;
  if (!std::filesystem::is_directory(config.model_path, error)) {
    return NotFound(
        fmt::format("model folder {} does not exist or is no folder", config.model_path));
  }
  ASSIGN_OR_RETURN(model_, LoadModelConfig(config.model_path));
  ASSIGN_OR_RETURN(io::Checkpoint checkpoint, io::Checkpoint::Open(config.model_path));
  checkpoint_ = std::make_unique<io::Checkpoint>(std::move(checkpoint));
  ASSIGN_OR_RETURN(weights_, LoadWeights(*checkpoint_, model_));
  obs::LogInfo(fmt::format("model loaded path={} layers={} weight_bytes={}", config.model_path,
                           model_.layer_count, weights_.mapped_bytes));
  return OkStatus();
}

Status Session::OpenRows(const ComputeConfig& config) {
  if (model_.engram.layer_ids.empty()) return OkStatus();
  RETURN_IF_ERROR(table::CheckCanHash(model_.engram));
  ASSIGN_OR_RETURN(
      tables_, client::LoadModelTables(config.model_path, config.model_name, config.model_version));
  ASSIGN_OR_RETURN(source_, OpenRowSource(config, *checkpoint_, tables_));
  return OkStatus();
}

client::SourceStats Session::row_stats() const {
  return source_ ? source_->stats() : client::SourceStats();
}

}  // namespace engram::compute
