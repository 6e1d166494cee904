#include "compute/engine/follower.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "compute/engine/rank_messages.h"

namespace engram::compute {
namespace {

using parallel::Patience;

// Rows as rank 0 passes them on.
class ReceivedRows : public LayerRows {
 public:
  ReceivedRows(size_t runs, parallel::Collective& ranks) : runs_(runs), ranks_(ranks) {}

  void Wait(uint32_t layer_index) override {
    layer_index_ = layer_index;
    parts_.assign(runs_, {});
    ranks_.Broadcast(bytes_, Patience::kBusy);
    if (!ranks_.status().ok()) return;
    auto parts = DecodeRows(bytes_, runs_);
    if (parts.ok()) {
      parts_ = std::move(*parts);
    } else {
      status_ = parts.status();
    }
  }
  std::span<const std::byte> Rows(size_t run, uint32_t layer_index) const override {
    CHECK_EQ(layer_index, layer_index_);
    return parts_[run];
  }
  const Status& status() const { return status_; }

 private:
  const size_t runs_;
  parallel::Collective& ranks_;
  uint32_t layer_index_ = 0;
  std::vector<std::byte> bytes_;
  std::vector<std::span<const std::byte>> parts_;
  Status status_;
};

class Follower {
 public:
  Follower(const ModelConfig& config, const Transformer& transformer, PagePool& pages,
           parallel::Collective& ranks)
      : config_(config), transformer_(transformer), pages_(pages), ranks_(ranks) {}

  Status Run() {
    std::vector<std::byte> bytes;
    while (true) {
      ranks_.Broadcast(bytes, Patience::kIdle);
      RETURN_IF_ERROR(ranks_.status());
      ASSIGN_OR_RETURN(const RankMessage message, DecodeRankMessage(bytes));
      if (message.command == RankCommand::kEnd) return OkStatus();
      RETURN_IF_ERROR(message.command == RankCommand::kStep ? Step(message.step)
                                                            : Logits(message.floats));
      RETURN_IF_ERROR(ranks_.status());
    }
  }

 private:
  Status Step(const RankStep& step) {
    std::erase_if(states_, [&](const auto& entry) {
      return std::find(step.alive.begin(), step.alive.end(), entry.first) == step.alive.end();
    });
    std::vector<Segment> segments;
    for (const RankStep::Run& run : step.runs) {
      segments.push_back({run.tokens, &StateOf(run)});
      if (segments.back().state->length == run.first) continue;
      return InternalError("the ranks disagree about how far a request is computed");
    }
    ReceivedRows rows(step.runs.size(), ranks_);
    transformer_.Forward(segments, rows, pages_);
    return rows.status();
  }

  SequenceState& StateOf(const RankStep::Run& run) {
    SequenceState& state = states_[run.sequence];
    if (run.fresh) {
      state = SequenceState(pages_.shape());
      state.length = run.first;
      const int64_t before = run.first / pages_.shape().positions - 1;
      for (size_t e = 0; before >= 0 && e < state.conv_history.size(); ++e) {
        const std::span<float> history =
            pages_.History(run.pages[static_cast<size_t>(before)], static_cast<int64_t>(e));
        state.conv_history[e].assign(history.begin(), history.end());
      }
    }
    state.pages = run.pages;
    return state;
  }

  Status Logits(int64_t floats) {
    std::vector<std::byte> bytes;
    ranks_.Broadcast(bytes, Patience::kBusy);
    RETURN_IF_ERROR(ranks_.status());
    std::vector<float> hidden(static_cast<size_t>(floats));
    if (bytes.size() != hidden.size() * sizeof(float)) {
      return InternalError("rank 0 sent other hidden states than it announced");
    }
    std::memcpy(hidden.data(), bytes.data(), bytes.size());
    logits_.resize(hidden.size() / static_cast<size_t>(config_.hidden_size) *
                   static_cast<size_t>(config_.vocab_size));
    transformer_.Logits(hidden, logits_);
    return OkStatus();
  }

  const ModelConfig& config_;
  const Transformer& transformer_;
  PagePool& pages_;
  parallel::Collective& ranks_;
  std::map<uint64_t, SequenceState> states_;
  std::vector<float> logits_;
};

}  // namespace

Status Follow(const ModelConfig& config, const Transformer& transformer, PagePool& pages,
              parallel::Collective& ranks) {
  return Follower(config, transformer, pages, ranks).Run();
}

}  // namespace engram::compute
