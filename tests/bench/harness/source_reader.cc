#include "tests/bench/harness/source_reader.h"

#include <array>
#include <chrono>
#include <vector>

namespace engram::bench {
namespace {

constexpr auto kDeadline = std::chrono::seconds(10);

class SourceReader : public BatchReader {
 public:
  SourceReader(client::RowSource& source, size_t depth) : source_(source), steps_(depth) {}

  Status Begin(const Batch& batch, std::span<std::byte> out) override {
    Step& step = steps_[begun_++ % steps_.size()];
    const size_t layer_bytes = out.size() / kLayers;
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      step.lookups[layer].layer_index = layer;
      step.lookups[layer].rows = batch.rows[layer];
      step.lookups[layer].out = out.subspan(layer * layer_bytes, layer_bytes);
    }
    auto ticket = source_.Submit(step.lookups, std::chrono::steady_clock::now() + kDeadline);
    if (!ticket.ok()) return ticket.status();
    step.ticket = std::move(*ticket);
    return OkStatus();
  }

  Status End() override {
    Step& step = steps_[ended_++ % steps_.size()];
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      RETURN_IF_ERROR(step.ticket.Wait(layer));
    }
    step.ticket = {};
    return OkStatus();
  }

 private:
  struct Step {
    std::array<client::LayerLookup, kLayers> lookups;
    client::Ticket ticket;
  };
  client::RowSource& source_;
  std::vector<Step> steps_;
  size_t begun_ = 0;
  size_t ended_ = 0;
};

}  // namespace

std::unique_ptr<BatchReader> MakeSourceReader(client::RowSource& source, size_t depth) {
  return std::make_unique<SourceReader>(source, depth);
}

}  // namespace engram::bench
