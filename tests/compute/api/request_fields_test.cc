// Every field of the table does what the table says: honoured, refused unless neutral, or harmless.
#include "compute/api/request_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "compute/api/api_request.h"
#include "tests/compute/api/tiny_tokenizer.h"

namespace engram::compute {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Nothing that any table calls neutral.
const char* const kOther[] = {"12345", R"("zz")", R"({"x":1})", R"(["x"])"};

class RequestFieldsTest : public testing::Test {
 protected:
  ApiModel Model(bool allow_unknown = false) const {
    ApiModel model;
    model.name = "tiny";
    model.tokenizer = &tokenizer_;
    model.vocab_size = tokenizer_.vocab_size();
    model.positions_max = 1000;
    model.allow_unknown_fields = allow_unknown;
    return model;
  }
  // A request (or the object inside it) of this kind with this field, and what is said of it: the
  // error's JSON, or empty.
  std::string Said(ObjectKind kind, std::string_view name, std::string_view value,
                   bool allow_unknown = false) const {
    const ApiModel model = Model(allow_unknown);
    const std::string field = json::serialize(json::string(name)) + ":" + std::string(value);
    const auto of = [](const ApiError& error) {
      return error.ok() ? std::string() : json::serialize(ErrorJson(error));
    };
    ApiRequest request;
    std::vector<int32_t> ids;
    switch (kind) {
      case kCompletion:
        return of(ParseCompletion(R"({"prompt":"x",)" + field + "}", model, request));
      case kChat:
        return of(ParseChat(R"({"messages":[{"role":"user","content":"x"}],)" + field + "}", model,
                            request));
      case kTokenize:
        return of(ParseTokenize(R"({"prompt":"x",)" + field + "}", model, ids));
      case kDetokenize:
        return of(ParseDetokenize(R"({"tokens":[1],)" + field + "}", model, ids));
      case kMessage:
        return of(ParseChat(R"({"messages":[{"role":"user","content":"x",)" + field + "}]}", model,
                            request));
      case kContentPart:
        return of(ParseChat(R"({"messages":[{"role":"user","content":[{"type":"text","text":"x",)" +
                                field + "}]}]}",
                            model, request));
      case kStreamOptions:
        return of(ParseCompletion(
            R"({"prompt":"x","stream":true,"stream_options":{)" + field + "}}", model, request));
    }
    return "no such kind";
  }
  static constexpr ObjectKind kKinds[] = {kCompletion, kChat,        kTokenize,     kDetokenize,
                                          kMessage,    kContentPart, kStreamOptions};
  template <typename Body>
  static void EachOf(FieldUse use, const Body& body) {
    for (const RequestField& field : RequestFields()) {
      if (field.use != use) continue;
      for (const ObjectKind kind : kKinds) {
        SCOPED_TRACE(std::string(field.name) + " in kind " + std::to_string(kind));
        if ((field.kinds & kind) != 0) body(field, kind);
      }
    }
  }
  ApiRequest Completion(const std::string& fields) const {
    ApiRequest request;
    const std::string body = R"({"prompt":"the cat",)" + fields + "}";
    EXPECT_EQ(ParseCompletion(body, Model(), request).message, "");
    return request;
  }

  const text::Tokenizer tokenizer_ = TinyTokenizer();
};

TEST_F(RequestFieldsTest, FieldsOthersActOnAreRefusedByNameUnlessNeutral) {
  EachOf(FieldUse::kNeutral, [&](const RequestField& field, ObjectKind kind) {
    for (const char* nothing : {"null", "[]", "{}", R"("")"}) {
      EXPECT_EQ(Said(kind, field.name, nothing), "") << nothing;
    }
    const json::array neutral = json::parse(field.neutral).as_array();
    for (const json::value& value : neutral) {
      EXPECT_EQ(Said(kind, field.name, json::serialize(value)), "") << value;
    }
    for (const char* other : kOther) {
      EXPECT_THAT(Said(kind, field.name, other),
                  AllOf(HasSubstr(std::string(field.name) + " is not supported here"),
                        HasSubstr("\"code\":\"unsupported_parameter\"")))
          << other;
    }
  });
}

// An empty schema is any JSON, an empty object switches the search on: with 200 a client would take
// free text for what it asked for.
TEST_F(RequestFieldsTest, EmptyValuesThatAskForSomethingAreRefused) {
  EachOf(FieldUse::kNeutralIfNull, [&](const RequestField& field, ObjectKind kind) {
    EXPECT_EQ(Said(kind, field.name, "null"), "");
    const json::array neutral = json::parse(field.neutral).as_array();
    for (const json::value& value : neutral) {
      EXPECT_EQ(Said(kind, field.name, json::serialize(value)), "") << value;
    }
    for (const char* other : {"[]", "{}", "12345", R"("zz")", R"({"x":1})", R"(["x"])"}) {
      EXPECT_THAT(Said(kind, field.name, other),
                  AllOf(HasSubstr(std::string(field.name) + " is not supported here"),
                        HasSubstr("\"code\":\"unsupported_parameter\"")))
          << other;
    }
  });
  for (const char* name : {"web_search_options", "guided_json", "json_schema", "format"}) {
    EXPECT_THAT(Said(kChat, name, "{}"), HasSubstr("unsupported_parameter")) << name;
  }
}

TEST_F(RequestFieldsTest, ThinkingThatIsSwitchedOffIsNeutralHoweverItIsSpelt) {
  EXPECT_EQ(Said(kChat, "enable_thinking", "false"), "");
  EXPECT_EQ(Said(kChat, "thinking", R"({"type":"disabled"})"), "");
  EXPECT_EQ(Said(kChat, "reasoning", R"({"enabled":false})"), "");
  EXPECT_THAT(Said(kChat, "reasoning", R"({"enabled":true})"), HasSubstr("unsupported_parameter"));
}

TEST_F(RequestFieldsTest, HarmlessFieldsMayBeAnything) {
  EachOf(FieldUse::kHarmless, [&](const RequestField& field, ObjectKind kind) {
    for (const char* value : kOther) EXPECT_EQ(Said(kind, field.name, value), "") << value;
  });
}

TEST_F(RequestFieldsTest, HonouredFieldsAreReadWhereverTheyAreKnown) {
  // No honoured field takes this, so each one that is looked at says so.
  EachOf(FieldUse::kHonoured, [&](const RequestField& field, ObjectKind kind) {
    if (field.name == "messages" && kind == kTokenize) return;  // instead of the prompt
    if (field.name == "add_generation_prompt" && kind == kTokenize) return;  // of messages
    EXPECT_NE(Said(kind, field.name, R"({"x":[1e30]})"), "");
    if (kind != kMessage && kind != kContentPart && field.name != "prompt" &&
        field.name != "messages" && field.name != "tokens") {
      EXPECT_EQ(Said(kind, field.name, "null"), "") << "as if it were not there";
    }
  });
}

TEST_F(RequestFieldsTest, FieldsThatWereIgnoredWith200AreRefused) {
  for (const auto& [name, value] :
       std::map<std::string, std::string>{{"reasoning_effort", R"("high")"},
                                          {"chat_template_kwargs", R"({"enable_thinking":false})"},
                                          {"structured_outputs", R"({"regex":"a+"})"},
                                          {"allowed_token_ids", "[5]"},
                                          {"truncate_prompt_tokens", "3"},
                                          {"guided_json", "{\"type\":\"object\"}"},
                                          {"min_tokens", "3"},
                                          {"repetition_penalty", "1.1"}}) {
    EXPECT_THAT(Said(kChat, name, value), HasSubstr("\"param\":\"" + name + "\"")) << name;
  }
  EXPECT_THAT(Said(kChat, "skip_special_tokens", "true"), HasSubstr("or send false"));
  EXPECT_THAT(Said(kMessage, "tool_calls", R"([{"id":"1"}])"),
              AllOf(HasSubstr("messages: tool_calls"), HasSubstr("\"param\":\"messages\"")));
}

TEST_F(RequestFieldsTest, NeutralValuesThatWereRefusedAreTaken) {
  for (const auto& [name, value] :
       std::map<std::string, std::string>{{"repetition_penalty", "1.0"},
                                          {"min_tokens", "0"},
                                          {"suffix", R"("")"},
                                          {"tool_choice", R"("none")"},
                                          {"parallel_tool_calls", "true"},
                                          {"tools", "[]"},
                                          {"response_format", R"({"type":"text"})"},
                                          {"modalities", R"(["text"])"},
                                          {"n", "1.0"},
                                          {"length_penalty", "1"}}) {
    EXPECT_EQ(Said(kCompletion, name, value), "") << name;
    EXPECT_EQ(Said(kChat, name, value), "") << name;
  }
}

TEST_F(RequestFieldsTest, StreamOptionsThatAskForNothingNeedNoStream) {
  for (const char* nothing : {"null", "{}", R"({"include_usage":false})"}) {
    EXPECT_EQ(Said(kChat, "stream_options", nothing), "") << nothing;
  }
  EXPECT_THAT(Said(kChat, "stream_options", R"({"include_usage":true})"),
              HasSubstr("\"stream\\\": true only"));
}

TEST_F(RequestFieldsTest, UnknownFieldsAreRefusedWithTheNearestName) {
  for (const ObjectKind kind : kKinds) {
    EXPECT_THAT(Said(kind, "somebody_elses", "{\"a\":[1]}"),
                AllOf(HasSubstr("unknown field"), HasSubstr("unknown_parameter"),
                      HasSubstr("api.allow_unknown_fields")))
        << kind;
    EXPECT_EQ(Said(kind, "somebody_elses", "null"), "") << "asks for nothing";
    EXPECT_EQ(Said(kind, "somebody_elses", "7", true), "") << "allowed";
  }
  EXPECT_THAT(Said(kChat, "max_token", "5"),
              AllOf(HasSubstr("did you mean max_tokens?"), HasSubstr("\"param\":\"max_token\"")));
  EXPECT_THAT(Said(kStreamOptions, "include_usages", "true"), HasSubstr("mean include_usage?"));
  EXPECT_THAT(Said(kMessage, "contents", "1"), HasSubstr("mean content?"));
}

TEST_F(RequestFieldsTest, AFieldOfAnotherKindOfRequestIsUnknown) {
  EXPECT_THAT(Said(kCompletion, "max_completion_tokens", "5"), HasSubstr("unknown field"));
  EXPECT_THAT(Said(kChat, "prompt", R"("x")"), HasSubstr("unknown field"));
}

TEST_F(RequestFieldsTest, ALongOrOddNameIsCutInTheMessage) {
  const std::string said = Said(kChat, std::string(100'000, 'x'), "1");
  EXPECT_LT(said.size(), 1000u);
  EXPECT_THAT(Said(kChat, "\"\n" + std::string(57, 'x') + "é", "1"),
              HasSubstr(std::string(57, 'x') + "\""))
      << "no half of a character";
}

TEST_F(RequestFieldsTest, AllowedUnknownFieldsAreRememberedToBeLogged) {
  ApiRequest request;
  const ApiError error = ParseChat(
      R"({"a":1,"messages":[{"role":"user","content":"x","b":2}],"c":null})", Model(true), request);
  EXPECT_EQ(error.message, "");
  EXPECT_THAT(request.unknown_fields, testing::ElementsAre("a", "b"));
  EXPECT_NE(Said(kChat, "tools", "[1]", true), "") << "what is known is not ignored";
}

TEST_F(RequestFieldsTest, NoFieldIsInTheTableTwice) {
  std::set<std::pair<std::string_view, int>> seen;
  for (const RequestField& field : RequestFields()) {
    EXPECT_NE(field.kinds, 0) << field.name;
    for (const ObjectKind kind : kKinds) {
      if ((field.kinds & kind) == 0) continue;
      EXPECT_TRUE(seen.emplace(field.name, kind).second) << field.name;
    }
  }
}

TEST_F(RequestFieldsTest, StopIdsAndShownStopsReachTheRequest) {
  const ApiRequest request =
      Completion(R"("stop_token_ids":[7,9],"include_stop_str_in_output":true)");
  EXPECT_THAT(request.completion.stop_ids, testing::ElementsAre(7, 9));
  EXPECT_TRUE(request.show_stop);
  const SampledToken asked{7, 0, {}}, eos{0, 0, {}};
  EXPECT_FALSE(request.HidesLast(FinishReason::kStop, {&asked, 1}));
  EXPECT_TRUE(request.HidesLast(FinishReason::kStop, {&eos, 1}));
  EXPECT_TRUE(Completion(R"("stop_token_ids":[7])").HidesLast(FinishReason::kStop, {&asked, 1}));
  EXPECT_THAT(Said(kCompletion, "stop_token_ids", "[99999]"), HasSubstr("token ids below"));
  std::string many = "[1";
  for (size_t i = 0; i < kStopIdsMax; ++i) many += ",1";
  EXPECT_THAT(Said(kCompletion, "stop_token_ids", many + "]"), HasSubstr("at most 64"));
}

TEST_F(RequestFieldsTest, WithoutAGenerationPromptTheAssistantsTurnDoesNotBegin) {
  const auto prompt = [&](const std::string& fields) {
    ApiRequest request;
    const std::string body = R"({"messages":[{"role":"user","content":"the cat"}])" + fields + "}";
    EXPECT_EQ(ParseChat(body, Model(), request).message, "");
    return *tokenizer_.Decode(request.prompts.at(0));
  };
  const std::string without = prompt(R"(,"add_generation_prompt":false)");
  EXPECT_THAT(without, testing::EndsWith("the cat"));
  EXPECT_EQ(prompt(R"(,"add_generation_prompt":true)"), without + "<｜Assistant｜>");
  EXPECT_EQ(prompt(""), without + "<｜Assistant｜>");
}

// Whole numbers beyond every range: what is quoted is what was sent.
TEST_F(RequestFieldsTest, NumbersBeyondTheirRangeAreQuotedAsSent) {
  for (const RequestField& field : RequestFields()) {
    const bool number = field.name == "max_tokens" || field.name == "max_completion_tokens" ||
                        field.name == "top_k" || field.name == "top_logprobs" ||
                        field.name == "temperature" || field.name == "top_p" ||
                        field.name == "min_p" || field.name == "presence_penalty" ||
                        field.name == "frequency_penalty";
    if (!number) continue;
    SCOPED_TRACE(std::string(field.name));
    EXPECT_THAT(Said(kChat, field.name, "10000000000000000000"),
                HasSubstr("it is 10000000000000000000"));
    EXPECT_THAT(Said(kChat, field.name, "-9223372036854775808"),
                HasSubstr("it is -9223372036854775808"));
    EXPECT_THAT(Said(kChat, field.name, "1e30"), AllOf(HasSubstr(".."), HasSubstr("it is 1E30")));
  }
  EXPECT_THAT(Said(kCompletion, "prompt", "[10000000000000000000]"),
              HasSubstr("it is 10000000000000000000"));
  EXPECT_THAT(Said(kCompletion, "stop_token_ids", "[10000000000000000000]"),
              HasSubstr("it is 10000000000000000000"));
  EXPECT_THAT(Said(kCompletion, "logit_bias", R"({"10000000000000000000":1})"),
              HasSubstr("10000000000000000000"));
  EXPECT_THAT(Said(kCompletion, "seed", "1e30"), HasSubstr("it is 1E30"));
  EXPECT_THAT(Said(kCompletion, "n", "10000000000000000000"),
              HasSubstr("it is 10000000000000000000"));
}

TEST_F(RequestFieldsTest, ATopKOfAnySizeIsAllAndASeedKeepsItsSpelling) {
  EXPECT_EQ(Completion(R"("top_k":9223372036854775807)").completion.sampling.top_k, INT64_MAX);
  EXPECT_TRUE(Completion(R"("top_k":9223372036854775807)").completion.sampling.Check(10).ok());
  EXPECT_EQ(json::serialize(Completion(R"("seed":18446744073709551615)").seed),
            "18446744073709551615");
  EXPECT_EQ(json::serialize(Completion(R"("seed":-1)").seed), "-1");
  EXPECT_EQ(Completion(R"("seed":-1)").completion.sampling.seed, UINT64_MAX);
}

}  // namespace
}  // namespace engram::compute
