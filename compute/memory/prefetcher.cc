#include "compute/memory/prefetcher.h"

#include <fmt/format.h>

#include <algorithm>

namespace engram::compute {

struct Fetch {
  struct Run {
    uint64_t sequence = 0;
    int64_t first_position = 0;
    size_t first_token = 0;
    size_t tokens = 0;
  };
  bool in_use = false;
  int age = 0;  // steps that ended since it was submitted
  std::vector<Run> runs;
  std::vector<int32_t> tokens;                // of all runs
  std::vector<int64_t> ids;                   // compressed tokens
  std::vector<std::vector<uint64_t>> rows;    // per layer
  std::vector<std::vector<std::byte>> bytes;  // per layer
  std::vector<Status> layer_status;           // of the layers waited for
  std::vector<bool> waited;
  client::Ticket ticket;  // last: it writes into bytes until destroyed

  void Free() {
    ticket = {};
    in_use = false;
  }
};

namespace {

std::string Positions(int64_t first, size_t count) {
  if (count == 1) return fmt::format("position {}", first);
  return fmt::format("positions {} to {}", first, first + static_cast<int64_t>(count) - 1);
}

}  // namespace

Prefetcher::Prefetcher(client::RowSource* source, const table::TableLayout& layout,
                       const table::VocabMap& map, PrefetchOptions options, const Clock& clock)
    : source_(source),
      layout_(layout),
      map_(map),
      options_(options),
      clock_(clock),
      fetch_seconds_({5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05,
                      0.1, 0.2, 0.5, 1, 2, 5}) {
  CHECK(source != nullptr || layout.layers.empty()) << "Engram layers without a source of rows";
  for (const table::LayerLayout& layer : layout.layers) waits_.push_back({layer.layer_id, 0, 0});
}

Prefetcher::~Prefetcher() = default;

Status Prefetcher::Hash(std::span<const TokenRun> runs, Fetch& fetch) const {
  const auto per_token = static_cast<size_t>(layout_.rows_per_position());
  fetch.ids.clear();
  for (const int32_t token : fetch.tokens) {
    ASSIGN_OR_RETURN(const int64_t id, map_.Compress(token));
    fetch.ids.push_back(id);
  }
  fetch.rows.resize(layout_.layers.size());
  fetch.bytes.resize(layout_.layers.size());
  for (size_t l = 0; l < layout_.layers.size(); ++l) {
    fetch.rows[l].resize(fetch.ids.size() * per_token);
    fetch.bytes[l].resize(fetch.rows[l].size() * layout_.row_format.row_bytes());
    for (size_t r = 0; r < runs.size(); ++r) {
      const Fetch::Run& run = fetch.runs[r];
      table::HashRows(
          layout_, layout_.layers[l], runs[r].before,
          std::span(fetch.ids).subspan(run.first_token, run.tokens), {},
          std::span(fetch.rows[l]).subspan(run.first_token * per_token, run.tokens * per_token));
    }
  }
  return OkStatus();
}

Result<Fetch*> Prefetcher::Start(std::span<const TokenRun> runs, client::Priority priority) {
  auto free = std::find_if(fetches_.begin(), fetches_.end(),
                           [](const auto& fetch) { return !fetch->in_use; });
  if (free == fetches_.end() && fetches_.size() < kFetchesMax) {
    free = fetches_.insert(free, std::make_unique<Fetch>());
  }
  if (free == fetches_.end()) {
    return ResourceExhausted(fmt::format("prefetch of {}: {} fetches are under way already",
                                         Positions(runs[0].first_position, runs[0].tokens.size()),
                                         kFetchesMax));
  }
  Fetch& fetch = **free;
  fetch.runs.clear();
  fetch.tokens.clear();
  for (const TokenRun& run : runs) {
    fetch.runs.push_back(
        {run.sequence, run.first_position, fetch.tokens.size(), run.tokens.size()});
    fetch.tokens.insert(fetch.tokens.end(), run.tokens.begin(), run.tokens.end());
  }
  RETURN_IF_ERROR(Hash(runs, fetch));
  std::vector<client::LayerLookup> lookups;
  for (uint32_t l = 0; l < layout_.layers.size(); ++l)
    lookups.push_back({l, fetch.rows[l], fetch.bytes[l]});
  const client::SubmitOptions options(
      clock_.Now() + std::chrono::milliseconds(options_.deadline_ms), priority);
  ASSIGN_OR_RETURN(fetch.ticket, source_->Submit(lookups, options));
  fetch.layer_status.assign(layout_.layers.size(), OkStatus());
  fetch.waited.assign(layout_.layers.size(), false);
  fetch.age = 0;
  fetch.in_use = true;
  return &fetch;
}

Status Prefetcher::Submit(std::span<const TokenRun> runs, client::Priority priority) {
  if (layout_.layers.empty() || runs.empty()) return OkStatus();
  return Start(runs, priority).status();
}

bool Prefetcher::Find(const TokenRun& run, StepRows::Part& part) const {
  for (const auto& fetch : fetches_) {
    if (!fetch->in_use) continue;
    for (const Fetch::Run& held : fetch->runs) {
      const auto tokens = std::span(fetch->tokens).subspan(held.first_token, held.tokens);
      if (held.sequence != run.sequence || held.first_position != run.first_position) continue;
      if (!std::equal(tokens.begin(), tokens.end(), run.tokens.begin(), run.tokens.end())) continue;
      part.fetch = fetch.get();
      part.first_token = held.first_token;
      return true;
    }
  }
  return false;
}

StepRows Prefetcher::Take(std::span<const TokenRun> runs) {
  StepRows step(this);
  std::vector<TokenRun> late;
  for (const TokenRun& run : runs) {
    StepRows::Part part;
    part.run = run;
    if (!layout_.layers.empty() && !Find(run, part)) late.push_back(run);
    step.parts_.push_back(std::move(part));
  }
  if (late.empty()) return step;
  for (const TokenRun& run : late) late_tokens_ += static_cast<int64_t>(run.tokens.size());
  Result<Fetch*> fetch = Start(late, client::Priority::kDecode);
  const bool one_by_one = !fetch.ok() && late.size() > 1;
  for (size_t i = 0; i < runs.size(); ++i) {
    StepRows::Part& part = step.parts_[i];
    if (part.fetch != nullptr) continue;
    // Refused together: each run is asked for again, so that only runs of missing rows go without.
    if (one_by_one) fetch = Start({&runs[i], 1}, client::Priority::kDecode);
    if (fetch.ok()) {
      CHECK(Find(runs[i], part));
    } else {
      part.status = fetch.status().WithContext(fmt::format(
          "Engram rows of {}", Positions(part.run.first_position, part.run.tokens.size())));
    }
  }
  return step;
}

void StepRows::WaitForFetches(uint32_t layer_index) {
  for (const Part& part : parts_) {
    if (part.fetch == nullptr || part.fetch->waited[layer_index]) continue;
    part.fetch->waited[layer_index] = true;
    part.fetch->layer_status[layer_index] = part.fetch->ticket.Wait(layer_index);
  }
}

void StepRows::AskAgainAlone(uint32_t layer_index) {
  for (Part& part : parts_) {
    if (part.fetch == nullptr || !part.status.ok() || part.fetch->runs.size() == 1) continue;
    const Status& failure = part.fetch->layer_status[layer_index];
    if (failure.ok() || failure.code() == Code::kDeadlineExceeded) continue;
    const Result<Fetch*> again = owner_->Start({&part.run, 1}, client::Priority::kDecode);
    if (!again.ok()) continue;
    part.fetch = *again;
    part.first_token = 0;
  }
}

void StepRows::Wait(uint32_t layer_index) {
  LayerWait& wait = owner_->waits_[layer_index];
  const TimePoint start = owner_->clock_.Now();
  WaitForFetches(layer_index);
  AskAgainAlone(layer_index);
  WaitForFetches(layer_index);
  wait.exposed_ns += Nanos(owner_->clock_.Now() - start).count();
  ++wait.waits;
  for (Part& part : parts_) {
    if (part.fetch == nullptr || !part.status.ok()) continue;
    Status status = part.fetch->layer_status[layer_index];
    if (status.ok() && owner_->options_.verify) status = owner_->Verify(part, layer_index);
    if (status.ok()) continue;
    part.status =
        status.WithContext(fmt::format("Engram rows of layer {}, {}", wait.layer_id,
                                       Positions(part.run.first_position, part.run.tokens.size())));
  }
}

std::span<const std::byte> StepRows::Rows(size_t run, uint32_t layer_index) const {
  const Part& part = parts_[run];
  // A run that lost the rows of one layer gets none of a later one either.
  if (part.fetch == nullptr || !part.status.ok()) return {};
  CHECK(part.fetch->waited[layer_index]);
  const size_t token_bytes = static_cast<size_t>(owner_->layout_.rows_per_position()) *
                             owner_->layout_.row_format.row_bytes();
  return std::span<const std::byte>(part.fetch->bytes[layer_index])
      .subspan(part.first_token * token_bytes, part.run.tokens.size() * token_bytes);
}

void Prefetcher::EndStep(StepRows rows) {
  for (const StepRows::Part& part : rows.parts_) {
    if (part.fetch != nullptr) part.fetch->age = 2;
  }
  for (const auto& fetch : fetches_) {
    if (!fetch->in_use || ++fetch->age < 2) continue;
    const Nanos took = fetch->ticket.took();
    if (took > Nanos::zero()) fetch_seconds_.Observe(static_cast<double>(took.count()) * 1e-9);
    fetch->Free();
  }
}

void Prefetcher::Cancel() {
  for (const auto& fetch : fetches_) fetch->Free();
}

Status Prefetcher::Advance(std::span<const int32_t> tokens, table::NgramState& state) const {
  if (layout_.layers.empty()) return OkStatus();
  for (const int32_t token : tokens) {
    ASSIGN_OR_RETURN(const int64_t id, map_.Compress(token));
    state.Append(id);
  }
  return OkStatus();
}

client::SourceStats Prefetcher::source_stats() const {
  return source_ == nullptr ? client::SourceStats() : source_->stats();
}

int64_t Prefetcher::exposed_ns() const {
  int64_t sum = 0;
  for (const LayerWait& wait : waits_) sum += wait.exposed_ns;
  return sum;
}

Status Prefetcher::Verify(const StepRows::Part& part, uint32_t layer_index) const {
  const auto per_token = static_cast<size_t>(layout_.rows_per_position());
  const Fetch& fetch = *part.fetch;
  const auto ids = std::span(fetch.ids).subspan(part.first_token, part.run.tokens.size());
  const auto asked = std::span(fetch.rows[layer_index])
                         .subspan(part.first_token * per_token, part.run.tokens.size() * per_token);
  std::vector<uint64_t> expected(asked.size());
  table::HashRows(layout_, layout_.layers[layer_index], part.run.before, ids, {}, expected);
  const auto differs = std::mismatch(asked.begin(), asked.end(), expected.begin());
  if (differs.first == asked.end()) return OkStatus();
  const auto index = static_cast<size_t>(differs.first - asked.begin());
  return InternalError(
      fmt::format("engram.verify: layer {}, position {}, column {}: row {} was fetched, row {} is "
                  "needed; the n-gram history changed between fetch and use",
                  layout_.layers[layer_index].layer_id,
                  part.run.first_position + static_cast<int64_t>(index / per_token),
                  index % per_token, *differs.first, *differs.second));
}

}  // namespace engram::compute
