// A step takes no memory but the workspace that was reserved at the start.
#include <gtest/gtest.h>

#include <numeric>
#include <tuple>

#include "tests/compute/same_answers.h"
#include "tests/support/allocation_count.h"

namespace engram::compute {
namespace {

using testing_support::AllocationCount;

constexpr int64_t kBatch = 8, kStepTokens = 96;

// The same bytes for every run, or none.
class FixedRows : public LayerRows {
 public:
  FixedRows(const TinyEngine& tiny, int64_t tokens_max, bool come) : tiny_(tiny) {
    if (!come || tiny.layout.layers.empty()) return;
    const size_t row_bytes = tiny.layout.row_format.row_bytes();
    bytes_.resize(tokens_max * tiny.layout.rows_per_position() * row_bytes);
    for (size_t r = 0; r < bytes_.size() / row_bytes; ++r) {
      FakeRowSource::FillRow(tiny.layout.row_format, 0, r,
                             std::span(bytes_).subspan(r * row_bytes, row_bytes));
    }
  }
  void Wait(uint32_t) override {}
  std::span<const std::byte> Rows(size_t run, uint32_t) const override {
    if (bytes_.empty()) return {};
    return std::span(bytes_).first(segments[run].tokens.size() * tiny_.layout.rows_per_position() *
                                   tiny_.layout.row_format.row_bytes());
  }
  std::span<const Segment> segments;

 private:
  const TinyEngine& tiny_;
  std::vector<std::byte> bytes_;
};

// Sequences that a test steps through the model as an engine does.
class Stepper {
 public:
  Stepper(const std::string& model, int threads, int64_t batch, bool rows_come)
      : tiny_(OptionsOf(model), Serving(threads)),
        rows_(tiny_, kStepTokens, rows_come),
        load_(tiny_.config),
        tokens_(RandomTokens(3, kStepTokens, tiny_.config.vocab_size)),
        logits_(kBatch * tiny_.config.vocab_size),
        states_(batch, SequenceState(tiny_.pages->shape())) {
    int32_t page = 0;
    for (SequenceState& state : states_) {
      state.pages.resize(20);
      std::iota(state.pages.begin(), state.pages.end(), page);
      page += 20;
      segments_.push_back({{}, &state});
    }
  }

  // Each sequence goes on by so many tokens.
  void Step(int64_t tokens) {
    for (Segment& segment : segments_) segment.tokens = std::span(tokens_).first(tokens);
    rows_.segments = segments_;
    const std::span<const float> hidden =
        tiny_.transformer->Forward(segments_, rows_, *tiny_.pages, &load_);
    const int64_t batch = std::ssize(segments_);
    tiny_.transformer->Logits(hidden.last(batch * tiny_.config.hidden_size),
                              std::span(logits_).first(batch * tiny_.config.vocab_size));
  }
  int64_t growths() { return tiny_.pool->memory().growths(); }

 private:
  static TinyServing Serving(int threads) {
    TinyServing serving = ServingOf(kBatch, 64, threads);
    serving.serving.scheduler.step_tokens = kStepTokens;
    return serving;
  }

  TinyEngine tiny_;
  FixedRows rows_;
  ExpertLoad load_;
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;
  std::vector<SequenceState> states_;
  std::vector<Segment> segments_;
};

using Case = std::tuple<std::string, int, int64_t, bool>;
class StepAllocation : public testing::TestWithParam<Case> {};

TEST_P(StepAllocation, StepsTakeNoMemoryButTheWorkspace) {
  const auto& [model, threads, batch, rows_come] = GetParam();
  Stepper stepper(model, threads, batch, rows_come);
  stepper.Step(1);
  const uint64_t before = AllocationCount();
  for (const int64_t tokens :
       {int64_t{1}, kStepTokens / batch, int64_t{7}, int64_t{1}, int64_t{1}}) {
    stepper.Step(tokens);
    EXPECT_EQ(AllocationCount(), before) << tokens << " tokens each";
  }
  EXPECT_EQ(stepper.growths(), 0) << "more than was reserved";
}

INSTANTIATE_TEST_SUITE_P(Models, StepAllocation,
                         testing::Combine(testing::Values("paper", "v41", "v41_fp8", "plain", "f32",
                                                          "mixed_experts", "wide"),
                                          testing::Values(1, 2), testing::Values(1, kBatch),
                                          testing::Bool()),
                         [](const auto& param_info) {
                           return std::get<0>(param_info.param) + "_threads_" +
                                  std::to_string(std::get<1>(param_info.param)) + "_batch_" +
                                  std::to_string(std::get<2>(param_info.param)) +
                                  (std::get<3>(param_info.param) ? "_with_rows" : "_without");
                         });

}  // namespace
}  // namespace engram::compute
