#include "memnode/load/instant_sources.h"

namespace engram::memnode::load {
namespace {

class InstantSource : public client::RowSource {
 public:
  InstantSource(const table::TableIdentity& identity, const RowReference* reference)
      : identity_(identity), reference_(reference) {}
  const table::TableIdentity& identity() const override { return identity_; }

  Result<client::Ticket> Submit(std::span<const client::LayerLookup> layers,
                                const client::SubmitOptions&) override {
    for (const client::LayerLookup& lookup : layers) {
      stats_.rows_asked += lookup.rows.size();
      stats_.rows_distinct += lookup.rows.size();
      if (reference_ == nullptr || lookup.rows.empty()) continue;
      const size_t row_bytes = lookup.out.size() / lookup.rows.size();
      for (size_t i = 0; i < lookup.rows.size(); ++i) {
        reference_->Fill(lookup.layer_index, lookup.rows[i],
                         lookup.out.subspan(i * row_bytes, row_bytes));
      }
    }
    return client::Ticket::Done(layers);
  }
  client::SourceStats stats() const override { return stats_; }

 private:
  const table::TableIdentity identity_;
  const RowReference* const reference_;
  client::SourceStats stats_;
};

}  // namespace

std::unique_ptr<client::RowSource> MakeNoOpSource(const table::TableIdentity& identity) {
  return std::make_unique<InstantSource>(identity, nullptr);
}

std::unique_ptr<client::RowSource> MakeReferenceSource(const table::TableIdentity& identity,
                                                       const RowReference& reference) {
  return std::make_unique<InstantSource>(identity, &reference);
}

}  // namespace engram::memnode::load
