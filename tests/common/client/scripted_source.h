// A RowSource for tests of what stands before one: answers with the procedural rows of fake_node.h
// when it is told to, from a thread of its own, and remembers what it was asked.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "common/client/row_source.h"
#include "tests/common/client/lookup/fake_node.h"

namespace engram::client {

class ScriptedSource : public RowSource {
 public:
  struct Asked {
    uint32_t layer_index = 0;
    std::vector<uint64_t> rows;
    TimePoint deadline;
    const std::byte* out = nullptr;
  };
  // While held, nothing is answered.
  void Hold(bool hold) {
    const std::lock_guard lock(mutex_);
    held_ = hold;
    changed_.notify_all();
  }
  void FailLayer(uint32_t layer_index, Status why) { failures_[layer_index] = std::move(why); }
  void FailSubmit(Status why) { refuse_ = std::move(why); }
  void FailNothing() {
    failures_.clear();
    refuse_ = OkStatus();
  }

  std::vector<Asked> asked;  // of every Submit, in order
  std::vector<SubmitOptions> options;
  size_t submits = 0;

  const table::TableIdentity& identity() const override { return identity_; }
  SourceStats stats() const override {
    SourceStats stats;
    stats.rows_asked = rows_;
    stats.rows_distinct = rows_;
    return stats;
  }
  Result<Ticket> Submit(std::span<const LayerLookup> layers,
                        const SubmitOptions& submit_options) override {
    const std::lock_guard lock(mutex_);
    ++submits;
    options.push_back(submit_options);
    for (const LayerLookup& lookup : layers) {
      asked.push_back({lookup.layer_index,
                       {lookup.rows.begin(), lookup.rows.end()},
                       lookup.deadline,
                       lookup.out.data()});
    }
    if (!refuse_.ok()) return refuse_;
    for (const LayerLookup& lookup : layers) rows_ += lookup.rows.size();
    return Ticket(std::make_unique<LateLookup>(*this, layers));
  }

 private:
  // Writes from another thread, as a client's IO thread does; destroyed, it stops that first.
  class LateLookup : public PendingLookup {
   public:
    LateLookup(ScriptedSource& source, std::span<const LayerLookup> layers)
        : source_(source), layers_(layers.begin(), layers.end()) {
      writer_ = std::thread([this] { Write(); });
    }
    ~LateLookup() override {
      {
        const std::lock_guard lock(source_.mutex_);
        given_up_ = true;
        source_.changed_.notify_all();
      }
      writer_.join();
    }
    Status Wait(uint32_t layer_index) override {
      std::unique_lock lock(source_.mutex_);
      source_.changed_.wait(lock, [this] { return written_; });
      const auto failed = source_.failures_.find(layer_index);
      return failed == source_.failures_.end() ? OkStatus() : failed->second;
    }
    bool Ready(uint32_t) const override {
      const std::lock_guard lock(source_.mutex_);
      return written_;
    }

   private:
    void Write() {
      std::unique_lock lock(source_.mutex_);
      source_.changed_.wait(lock, [this] { return !source_.held_ || given_up_; });
      if (given_up_) return;
      for (const LayerLookup& lookup : layers_) {
        if (source_.failures_.contains(lookup.layer_index)) continue;
        const size_t row_bytes = lookup.rows.empty() ? 0 : lookup.out.size() / lookup.rows.size();
        for (size_t i = 0; i < lookup.rows.size(); ++i) {
          FillRow(lookup.layer_index, lookup.rows[i], lookup.out.subspan(i * row_bytes, row_bytes));
        }
      }
      written_ = true;
      source_.changed_.notify_all();
    }

    ScriptedSource& source_;
    const std::vector<LayerLookup> layers_;
    bool written_ = false;
    bool given_up_ = false;
    std::thread writer_;
  };

  table::TableIdentity identity_ = table::MakeIdentity(MakeTestLayout(), "tiny", "1");
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  uint64_t rows_ = 0;
  Status refuse_;
  std::map<uint32_t, Status> failures_;
};

}  // namespace engram::client
