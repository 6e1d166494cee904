// An answer that a stop string ends counts no token, and no degraded position, of what follows it.
#include "compute/api/choice.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/compute/api/tiny_tokenizer.h"

namespace engram::compute {
namespace {

class ChoiceTest : public testing::Test {
 protected:
  // One token, with as many degraded positions up to it.
  Update UpdateOf(char byte, int64_t degraded) const {
    Update update;
    update.degraded_positions = degraded;
    update.cached_tokens = 3;
    for (int32_t id = 1; id < 257; ++id) {
      if (*tokenizer_.Decode({&id, 1}) == std::string(1, byte)) update.tokens = {{id, 0, {}}};
    }
    return update;
  }

  text::Tokenizer tokenizer_ = TinyTokenizer();
  ApiRequest request_;
};

TEST_F(ChoiceTest, AStopStringEndsTheFiguresWhereItEndsTheText) {
  request_.stop = {"b"};
  Choice choice(tokenizer_, request_);
  Update first = UpdateOf('a', 2);
  EXPECT_EQ(choice.Take(first), "a");
  EXPECT_FALSE(choice.ended());
  Update stopping = UpdateOf('b', 5);
  stopping.tokens.push_back(UpdateOf('c', 0).tokens[0]);
  EXPECT_EQ(choice.Take(stopping), "");
  EXPECT_TRUE(choice.ended());
  EXPECT_EQ(stopping.tokens.size(), 1u) << "what follows the stop string";
  EXPECT_EQ(choice.finish_reason, "stop");
  EXPECT_EQ(choice.completion_tokens, 2);
  EXPECT_EQ(choice.degraded_positions, 5);
  EXPECT_EQ(choice.cached_tokens, 3);
}

TEST_F(ChoiceTest, TheEndSaysWhyAndGivesWhatWasHeldBack) {
  request_.stop = {"bc"};
  Choice choice(tokenizer_, request_);
  Update held = UpdateOf('b', 0);
  EXPECT_EQ(choice.Take(held), "") << "may become the stop string";
  Update last = UpdateOf('d', 7);
  last.finish = Finish();
  last.finish->reason = FinishReason::kLength;
  EXPECT_EQ(choice.Take(last), "bd");
  EXPECT_EQ(choice.finish_reason, "length");
  EXPECT_EQ(choice.completion_tokens, 2);
  EXPECT_EQ(choice.degraded_positions, 7);
}

TEST_F(ChoiceTest, WholeAnswersHaveTheirLogprobsInPlace) {
  request_.logprobs = true;
  Choice with(tokenizer_, request_);
  Update update = UpdateOf('a', 0);
  update.finish = Finish();
  update.finish->reason = FinishReason::kLength;
  with.Gather(with.Take(update), update.tokens);
  const ApiRequest plain;
  Choice without(tokenizer_, plain);
  without.Gather(R"("logprobs":null)", {});
  const json::object answer = AnswerJson({"id", R"("logprobs":null)", 0, false, 7}, tokenizer_,
                                         {without.Whole(0), with.Whole(1)}, true);
  const std::string text =
      AnswerText(answer, std::array{without.TakeLogprobs(), with.TakeLogprobs()});
  auto parsed = io::ParseJson(text, "answer");
  ASSERT_TRUE(parsed.ok()) << text;
  json::value& logprobs = parsed->at("choices").at(1).at("logprobs");
  EXPECT_EQ(logprobs.at("tokens"), json::array{"a"});
  logprobs = nullptr;
  EXPECT_EQ(*parsed, answer) << "all else is as it was";
}

}  // namespace
}  // namespace engram::compute
