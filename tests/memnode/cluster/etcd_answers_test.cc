// etcd's answers, read field by field.
#include "memnode/cluster/etcd_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace engram::memnode {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(EtcdBase64, IsThatOfTheStandard) {
  const std::pair<std::string, std::string> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"},
                                                         {"\xff\xfe\xfd", "//79"}};
  for (const auto& [bytes, text] : vectors) {
    EXPECT_EQ(Base64(bytes), text);
    EXPECT_EQ(FromBase64(text), bytes);
  }
  std::string all;
  for (int c = 0; c < 256; ++c) all += static_cast<char>(c);
  for (size_t size = 0; size <= all.size(); ++size) {
    EXPECT_EQ(FromBase64(Base64(all.substr(0, size))), all.substr(0, size));
  }
  for (const char* text : {"Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm 9",
                           "Zm9v\n", "Zm-_", "\xc3\xa4\xc3\xa4"}) {
    EXPECT_EQ(FromBase64(text), std::nullopt) << text;
  }
}

TEST(EtcdAnswers, RangeIsReadWithItsValues) {
  const auto range = ParseEtcdRange(
      R"({"header":{"cluster_id":"15875391935852295136","revision":"7","raft_term":"2"},)"
      R"("kvs":[{"key":"L2E=","create_revision":"2","mod_revision":"5","version":"1",)"
      R"("value":"djE="},)"
      R"({"key":"L2I=","mod_revision":"7"}],"count":"2"})");
  ASSERT_TRUE(range.ok()) << range.status().message();
  EXPECT_EQ(range->revision, 7);
  ASSERT_THAT(range->values, SizeIs(2));
  EXPECT_EQ(range->values[0], (EtcdValue{"/a", "v1", 5}));
  EXPECT_EQ(range->values[1], (EtcdValue{"/b", "", 7}));
  EXPECT_THAT(ParseEtcdRange(R"({"header":{"revision":"1"}})")->values, IsEmpty());
}

TEST(EtcdAnswers, NothingElseIsARange) {
  std::string many = R"({"header":{"revision":"1"},"kvs":[)";
  for (size_t i = 0; i <= kEtcdValuesMax; ++i) many += R"({"key":"L2E=","mod_revision":"1"},)";
  many.back() = ']';
  for (const std::string& text :
       {std::string(), std::string("x"), std::string("[]"), std::string("{}"), std::string("null"),
        std::string(R"({"header":{}})"), std::string(R"({"header":[]})"),
        std::string(R"({"header":{"revision":1}})"), std::string(R"({"header":{"revision":"0"}})"),
        std::string(R"({"header":{"revision":"9223372036854775807"}})"),
        std::string(R"({"header":{"revision":"9223372036854775808"}})"),
        std::string(R"({"header":{"revision":"1"},"kvs":{}})"),
        std::string(R"({"header":{"revision":"1"},"kvs":[1]})"),
        std::string(R"({"header":{"revision":"1"},"kvs":[{}]})"),
        std::string(R"({"header":{"revision":"1"},"kvs":[{"key":"L2E="}]})"),
        std::string(R"({"header":{"revision":"1"},"kvs":[{"key":"L2E=","mod_revision":"-1"}]})"),
        std::string(R"({"header":{"revision":"1"},"kvs":[{"key":"?","mod_revision":"1"}]})"),
        std::string(R"({"header":{"revision":"1"},"kvs":[{"key":7,"mod_revision":"1"}]})"),
        many + "}"}) {
    EXPECT_EQ(ParseEtcdRange(text).status().code(), Code::kInvalidArgument) << text.substr(0, 80);
  }
}

TEST(EtcdAnswers, SwapTellsWhatIsThereInstead) {
  EXPECT_TRUE(ParseEtcdSwap(R"({"header":{},"succeeded":true,"responses":[{"response_put":{}}]})")
                  ->succeeded);
  const auto lost =
      ParseEtcdSwap(R"({"header":{},"responses":[{"response_range":)"
                    R"({"kvs":[{"key":"L2E=","mod_revision":"5","value":"djE="}]}}]})");
  ASSERT_TRUE(lost.ok()) << lost.status().message();
  EXPECT_FALSE(lost->succeeded);
  EXPECT_EQ(lost->found, (EtcdValue{"/a", "v1", 5}));
  const auto absent = ParseEtcdSwap(R"({"header":{},"responses":[{"response_range":{}}]})");
  ASSERT_TRUE(absent.ok());
  EXPECT_EQ(absent->found, std::nullopt);
  for (const char* text :
       {"", "{}", R"({"succeeded":true})", R"({"header":{},"succeeded":"true","responses":[]})",
        R"({"header":{},"responses":[]})", R"({"header":{},"responses":[{"response_put":{}}]})",
        R"({"header":{},"responses":[{"response_range":{}},{"response_range":{}}]})",
        R"({"header":{},"responses":[{"response_range":)"
        R"({"kvs":[{"key":"L2E=","mod_revision":"5"},{"key":"L2E=","mod_revision":"5"}]}}]})"}) {
    EXPECT_EQ(ParseEtcdSwap(text).status().code(), Code::kInvalidArgument) << text;
  }
}

TEST(EtcdAnswers, NewsAreEventsOrAnEnd) {
  EXPECT_TRUE(ParseEtcdNews(R"({"result":{"header":{},"created":true}})")->created);
  const auto events = ParseEtcdNews(
      R"({"result":{"header":{},"events":[{"kv":{"key":"L2E=","mod_revision":"5","value":"djE="}},)"
      R"({"type":"DELETE","kv":{"key":"L2E=","mod_revision":"6"}}]}})");
  ASSERT_TRUE(events.ok()) << events.status().message();
  ASSERT_THAT(events->events, SizeIs(2));
  EXPECT_EQ(events->events[0].value, (EtcdValue{"/a", "v1", 5}));
  EXPECT_FALSE(events->events[0].removed);
  EXPECT_TRUE(events->events[1].removed);
  EXPECT_EQ(events->cancelled, "");

  const auto compacted =
      ParseEtcdNews(R"({"result":{"header":{},"canceled":true,"compact_revision":"2"}})");
  EXPECT_TRUE(compacted->compacted);
  EXPECT_THAT(compacted->cancelled, HasSubstr("revision 2"));
  EXPECT_EQ(ParseEtcdNews(R"({"result":{"canceled":true,"cancel_reason":"why\n"}})")->cancelled,
            "why?");
  EXPECT_NE(ParseEtcdNews(R"({"result":{"canceled":true}})")->cancelled, "");
  EXPECT_EQ(
      ParseEtcdNews(R"({"error":{"grpc_code":14,"message":"etcdserver: no leader"}})")->cancelled,
      "etcdserver: no leader");
  EXPECT_NE(ParseEtcdNews(R"({"error":{}})")->cancelled, "");
  for (const char* text :
       {"", "{}", R"({"result":7})", R"({"result":{"events":[{}]}})",
        R"({"result":{"events":[{"type":"MOVE","kv":{"key":"L2E=","mod_revision":"5"}}]}})",
        R"({"result":{"created":"yes"}})", R"({"result":{"compact_revision":"-2"}})"}) {
    EXPECT_EQ(ParseEtcdNews(text).status().code(), Code::kInvalidArgument) << text;
  }
}

TEST(EtcdAnswers, RefusalsAndTokensAreHarmless) {
  const EtcdRefusal refusal =
      ParseEtcdRefusal(401, R"({"error":"etcdserver: invalid auth token",)"
                            R"("message":"etcdserver: invalid auth token","code":16})");
  EXPECT_EQ(refusal.grpc_code, 16);
  EXPECT_EQ(refusal.message, "etcdserver: invalid auth token");
  EXPECT_TRUE(RefusesEtcdToken(refusal.grpc_code, refusal.message));
  EXPECT_TRUE(RefusesEtcdToken(3, "etcdserver: revision of auth store is old"));
  EXPECT_FALSE(RefusesEtcdToken(7, "etcdserver: permission denied"));
  for (const char* text : {"", "<html>", "[]", "{}", R"({"error":7,"code":"x"})", R"({"code":-1})",
                           R"({"code":99,"message":""})"}) {
    EXPECT_EQ(ParseEtcdRefusal(502, text).grpc_code, kGrpcUnknown) << text;
    EXPECT_THAT(ParseEtcdRefusal(502, text).message, HasSubstr("502")) << text;
  }
  const std::string loud = R"({"message":")" + std::string(5000, 'x') + R"(\u001b[31m","code":3})";
  EXPECT_LT(ParseEtcdRefusal(400, loud).message.size(), 400u);
  EXPECT_EQ(*ParseEtcdToken(R"({"header":{},"token":"yxPKyWQPMlZrfVEY.11"})"),
            "yxPKyWQPMlZrfVEY.11");
  // A token becomes a header of our own.
  for (const char* text : {"", "{}", R"({"token":""})", R"({"token":"a\r\nX: y"})",
                           R"({"token":"a b"})", R"({"token":1})"}) {
    EXPECT_EQ(ParseEtcdToken(text).status().code(), Code::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace engram::memnode
