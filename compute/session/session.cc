#include "compute/session/session.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <limits>

#include "common/base/machine_limits.h"
#include "common/checkpoint/table_parts.h"
#include "common/obs/log.h"
#include "compute/engine/follower.h"
#include "compute/model/folder_files.h"
#include "compute/session/row_source.h"
#include "kernels/isa.h"

namespace engram::compute {
namespace {

void LogLeftOut(const ComputeConfig& config) {
  const std::string left_out = LeftOutOfFolder(config.model_path, config.api.chat_template);
  if (left_out.empty()) return;
  obs::LogWarn(fmt::format("files of the model folder are not all used path={}: {}",
                           config.model_path, left_out));
}

constexpr int64_t kMib = int64_t{1} << 20;

}  // namespace

int ThreadsOf(const ComputeConfig& config, const parallel::Collective& ranks) {
  if (config.threads > 0) return static_cast<int>(config.threads);
  return std::clamp(ReadMachineLimits().cpus / ranks.size(), 1, kernels::Pool::kThreadsMax);
}

namespace {

Result<DType> CacheDtype(const ComputeConfig& config) {
  if (config.cache_dtype == "fp32") return DType::kF32;
  if (config.cache_dtype == "bf16") return DType::kBf16;
  return InvalidArgument(
      fmt::format("cache.dtype is \"{}\"; it must be fp32 or bf16", config.cache_dtype));
}

}  // namespace

Session::~Session() = default;

Result<std::unique_ptr<Session>> Session::Open(const ComputeConfig& config,
                                               parallel::Collective& ranks) {
  std::unique_ptr<Session> session(new Session(ranks));
  RETURN_IF_ERROR(session->OpenModel(config));
  LogLeftOut(config);
  RETURN_IF_ERROR(session->OpenRows(config));
  RETURN_IF_ERROR(session->OpenTransformer(config));
  RETURN_IF_ERROR(session->OpenEngine(config));
  return session;
}

Status Session::RunFollower(const ComputeConfig& config, parallel::Collective& ranks) {
  Session session(ranks);
  RETURN_IF_ERROR(session.OpenModel(config));
  if (!session.model_.engram.layer_ids.empty()) {
    ASSIGN_OR_RETURN(session.tables_, client::LoadModelTables(config.model_path, config.model_name,
                                                              config.model_version));
  }
  RETURN_IF_ERROR(session.OpenTransformer(config));
  return Follow(session.model_, *session.transformer_, *session.pages_, ranks);
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
  RETURN_IF_ERROR(client::CheckLayersListed(*checkpoint_, model_.engram.layer_ids));
  ASSIGN_OR_RETURN(weights_, LoadWeights(*checkpoint_, model_));
  RETURN_IF_ERROR(ShardWeights(model_, ranks_, weights_));
  obs::LogInfo(fmt::format("model loaded path={} layers={} weight_bytes={} eos_ids={}",
                           config.model_path, model_.layer_count, weights_.mapped_bytes,
                           fmt::join(model_.eos_ids, ",")));
  if (model_.eos_ids.empty()) {
    obs::LogWarn(
        fmt::format("no file of the model folder names the token that ends an answer "
                    "(eos_token_id): answers end at max_tokens or a stop only path={}",
                    config.model_path));
  }
  return OkStatus();
}

Status Session::OpenRows(const ComputeConfig& config) {
  if (model_.engram.layer_ids.empty()) {
    if (config.lookup.memnodes.empty()) return OkStatus();
    return InvalidArgument(
        fmt::format("memory nodes are given ({} ...), but {}/config.json has no Engram layers "
                    "(engram_layer_ids): nothing would be asked of them; leave --memnodes out",
                    config.lookup.memnodes[0], config.model_path));
  }
  RETURN_IF_ERROR(table::CheckCanHash(model_.engram));
  ASSIGN_OR_RETURN(
      tables_, client::LoadModelTables(config.model_path, config.model_name, config.model_version));
  ASSIGN_OR_RETURN(OpenedRows opened, OpenRowSource(config, *checkpoint_, tables_));
  source_ = std::move(opened.source);
  tables_info_ = std::move(opened.tables);
  return OkStatus();
}

Status Session::OpenTransformer(const ComputeConfig& config) {
  ASSIGN_OR_RETURN(const DType dtype, CacheDtype(config));
  const PageShape shape = PageShapeOf(model_, config.page_positions, dtype);
  ASSIGN_OR_RETURN(const int64_t cache_mib, CacheMib(config, shape));
  const int64_t pages = cache_mib * kMib / shape.page_bytes();
  const int threads = ThreadsOf(config, ranks_);
  const int64_t workspace = Transformer::WorkspaceBytes(model_, config.step_tokens, threads);
  const std::array<MemoryUse, 3> parts = {
      {{"packed weights", weights_.mapped_bytes},
       {"cache.mib", static_cast<uint64_t>(cache_mib * kMib)},
       {"engine.step_tokens", static_cast<uint64_t>(workspace)}}};
  RETURN_IF_ERROR(
      CheckFits(parts, ReadMachineLimits(), "lower cache.mib, or give the engine more memory"));
  ASSIGN_OR_RETURN(PagePool pool, PagePool::Make(shape, pages));
  pages_ = std::make_unique<PagePool>(std::move(pool));
  pool_ = std::make_unique<kernels::Pool>(threads);
  if (pool_->threads() < threads) {
    obs::LogWarn(
        fmt::format("fewer threads compute threads={} engine.threads={}: raise ulimit -u or "
                    "pids.max",
                    pool_->threads(), threads));
  }
  RETURN_IF_ERROR(PackWeights(*pool_, weights_));
  RETURN_IF_ERROR(checkpoint_->CheckUnchanged());
  RETURN_IF_ERROR(pool_->memory().Reserve(workspace));
  transformer_ = std::make_unique<Transformer>(model_, weights_, tables_.layout.row_format, *pool_,
                                               config.step_tokens, ranks_);
  obs::LogInfo(fmt::format(
      "rank ready rank={} of={} instructions={} threads={} packed_bytes={} "
      "cache_mib={} pages={} page_positions={} cache_dtype={}",
      ranks_.rank(), ranks_.size(), kernels::IsaName(kernels::ActiveIsa()), pool_->threads(),
      weights_.memory.bytes(), cache_mib, pages, config.page_positions, config.cache_dtype));
  return OkStatus();
}

// Rank 0 decides for all: pages are numbered alike in each.
Result<int64_t> Session::CacheMib(const ComputeConfig& config, const PageShape& shape) {
  const int64_t page_mib = (shape.page_bytes() + kMib - 1) / kMib;
  int64_t cache_mib = config.cache_mib;
  if (cache_mib == 0) {
    // No limit that can be read counts as one that an int64_t holds.
    const uint64_t there =
        std::min(ReadMachineLimits().memory_bytes, uint64_t{std::numeric_limits<int64_t>::max()});
    const auto left = static_cast<int64_t>(there - std::min(there, weights_.mapped_bytes));
    const int64_t sequence_pages = (model_.positions_max + shape.positions - 1) / shape.positions;
    const int64_t all_mib =
        (config.sequences_max * sequence_pages * shape.page_bytes() + kMib - 1) / kMib;
    cache_mib = std::max(page_mib, std::min(all_mib, left / 4 / ranks_.size() / kMib));
    std::vector<std::byte> decided(sizeof(cache_mib));
    std::memcpy(decided.data(), &cache_mib, sizeof(cache_mib));
    ranks_.Broadcast(decided, parallel::Patience::kIdle);  // a rank may still read its weights
    RETURN_IF_ERROR(ranks_.status());
    CHECK(decided.size() == sizeof(cache_mib));
    std::memcpy(&cache_mib, decided.data(), sizeof(cache_mib));
  }
  if (cache_mib * kMib >= shape.page_bytes()) return cache_mib;
  return InvalidArgument(fmt::format(
      "cache.mib {} is less than one page of {} positions, which takes {} bytes of this model",
      cache_mib, config.page_positions, shape.page_bytes()));
}

Status Session::OpenEngine(const ComputeConfig& config) {
  if (config.on_missing != "fail" && config.on_missing != "degrade") {
    return InvalidArgument(
        fmt::format("engram.on_missing is \"{}\"; it must be fail or degrade", config.on_missing));
  }
  if (config.sequences_max > config.step_tokens) {
    return InvalidArgument(
        fmt::format("engine.sequences_max {} exceeds engine.step_tokens {}: a step has a token of "
                    "every running request",
                    config.sequences_max, config.step_tokens));
  }
  prefetcher_ = std::make_unique<Prefetcher>(source_.get(), tables_.layout, tables_.map,
                                             PrefetchOptions{config.deadline_ms, config.verify});
  const ServingOptions options{{config.step_tokens, config.prefill_chunk, config.sequences_max},
                               config.queue_max,
                               config.on_missing == "degrade"};
  engine_ = std::make_unique<ServingEngine>(model_, *transformer_, *prefetcher_, *pool_, *pages_,
                                            options, ranks_);
  RETURN_IF_ERROR(engine_->started());
  obs::LogInfo(fmt::format("engine ready positions_max={}", engine_->positions_max()));
  return OkStatus();
}

}  // namespace engram::compute
