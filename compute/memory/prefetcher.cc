#include "compute/memory/prefetcher.h"

#include <fmt/format.h>

#include <algorithm>

namespace engram::compute {

bool Fetch::IsFor(const StepTokens& step) const {
  return in_use_ && sequence_ == step.sequence && first_position_ == step.first_position &&
         std::equal(tokens_.begin(), tokens_.end(), step.tokens.begin(), step.tokens.end());
}

Result<std::span<const std::byte>> Fetch::Rows(uint32_t layer_index) {
  CHECK_LT(layer_index, bytes_.size());
  LayerWait& wait = owner_->waits_[layer_index];
  const TimePoint start = owner_->clock_.Now();
  const Status status = ticket_->Wait(layer_index);
  wait.exposed_ns += Nanos(owner_->clock_.Now() - start).count();
  ++wait.waits;
  if (!status.ok()) {
    const int64_t last = first_position_ + static_cast<int64_t>(tokens_.size()) - 1;
    return status.WithContext(fmt::format(
        "Engram rows of layer {}, {}", wait.layer_id,
        last == first_position_ ? fmt::format("position {}", last)
                                : fmt::format("positions {} to {}", first_position_, last)));
  }
  if (owner_->options_.verify) RETURN_IF_ERROR(owner_->Verify(*this, layer_index));
  return std::span<const std::byte>(bytes_[layer_index]);
}

Prefetcher::Prefetcher(client::RowSource* source, const table::TableLayout& layout,
                       const table::VocabMap& map, PrefetchOptions options, const Clock& clock)
    : source_(source), layout_(layout), map_(map), options_(options), clock_(clock) {
  CHECK(source != nullptr || layout.layers.empty()) << "Engram layers without a source of rows";
  for (const table::LayerLayout& layer : layout.layers) waits_.push_back({layer.layer_id, 0, 0});
  for (Fetch& fetch : fetches_) fetch.owner_ = this;
}

Status Prefetcher::Hash(const StepTokens& step, Fetch& fetch) const {
  fetch.ids_.clear();
  for (const int32_t token : step.tokens) {
    ASSIGN_OR_RETURN(const int64_t id, map_.Compress(token));
    fetch.ids_.push_back(id);
  }
  const size_t count = fetch.ids_.size() * static_cast<size_t>(layout_.rows_per_position());
  fetch.rows_.resize(layout_.layers.size());
  fetch.bytes_.resize(layout_.layers.size());
  for (size_t l = 0; l < layout_.layers.size(); ++l) {
    fetch.rows_[l].resize(count);
    fetch.bytes_[l].resize(count * layout_.row_format.row_bytes());
    table::HashRows(layout_, layout_.layers[l], step.before, fetch.ids_, {}, fetch.rows_[l]);
  }
  return OkStatus();
}

Result<Fetch*> Prefetcher::Start(const StepTokens& step) {
  const auto free =
      std::find_if(fetches_.begin(), fetches_.end(), [](const Fetch& f) { return !f.in_use_; });
  if (free == fetches_.end()) {
    return ResourceExhausted(
        fmt::format("prefetch of position {}: {} fetches are under way already",
                    step.first_position, fetches_.size()));
  }
  Fetch& fetch = *free;
  fetch.sequence_ = step.sequence;
  fetch.first_position_ = step.first_position;
  fetch.tokens_.assign(step.tokens.begin(), step.tokens.end());
  if (layout_.layers.empty()) {
    fetch.in_use_ = true;
    return &fetch;
  }
  RETURN_IF_ERROR(Hash(step, fetch));
  std::vector<client::LayerLookup> lookups;
  for (uint32_t l = 0; l < layout_.layers.size(); ++l)
    lookups.push_back({l, fetch.rows_[l], fetch.bytes_[l]});
  // One token is wanted at once; a chunk's rows have the chunk before to hide behind.
  const client::SubmitOptions options(
      clock_.Now() + std::chrono::milliseconds(options_.deadline_ms),
      step.tokens.size() > 1 ? client::Priority::kPrefill : client::Priority::kDecode);
  ASSIGN_OR_RETURN(fetch.ticket_, source_->Submit(lookups, options));
  fetch.in_use_ = true;
  return &fetch;
}

Status Prefetcher::Submit(const StepTokens& step) { return Start(step).status(); }

Result<Fetch*> Prefetcher::Take(const StepTokens& step) {
  const auto ready =
      std::find_if(fetches_.begin(), fetches_.end(), [&](const Fetch& f) { return f.IsFor(step); });
  Fetch* fetch = ready == fetches_.end() ? nullptr : &*ready;
  if (fetch == nullptr) {
    ++late_fetches_;
    ASSIGN_OR_RETURN(fetch, Start(step));
  }
  fetch->before_ = step.before;
  return fetch;
}

void Prefetcher::Done(Fetch* fetch) {
  fetch->ticket_.reset();
  fetch->in_use_ = false;
}

void Prefetcher::Cancel() {
  for (Fetch& fetch : fetches_) Done(&fetch);
}

Status Prefetcher::Advance(std::span<const int32_t> tokens, table::NgramState& state) const {
  if (layout_.layers.empty()) return OkStatus();
  for (const int32_t token : tokens) {
    ASSIGN_OR_RETURN(const int64_t id, map_.Compress(token));
    state.Append(id);
  }
  return OkStatus();
}

Status Prefetcher::Verify(const Fetch& fetch, uint32_t layer_index) const {
  const std::vector<uint64_t>& asked = fetch.rows_[layer_index];
  std::vector<uint64_t> expected(asked.size());
  table::HashRows(layout_, layout_.layers[layer_index], fetch.before_, fetch.ids_, {}, expected);
  const auto differs = std::mismatch(asked.begin(), asked.end(), expected.begin());
  if (differs.first == asked.end()) return OkStatus();
  const auto index = differs.first - asked.begin();
  return InternalError(
      fmt::format("engram.verify: layer {}, position {}, column {}: row {} was fetched, row {} is "
                  "needed; the n-gram history changed between fetch and use",
                  layout_.layers[layer_index].layer_id,
                  fetch.first_position_ + index / layout_.rows_per_position(),
                  index % layout_.rows_per_position(), *differs.first, *differs.second));
}

}  // namespace engram::compute
