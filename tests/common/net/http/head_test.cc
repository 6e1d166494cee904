// What a request's header may say, and what two readers could take for two things.
#include "common/net/http/head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/net/http/body.h"

namespace engram::net {
namespace {

std::string Get(std::string_view target, std::string_view fields = "Host: x\r\n") {
  return "GET " + std::string(target) + " HTTP/1.1\r\n" + std::string(fields) + "\r\n";
}
int FaultOf(const std::string& text) {
  const auto parsed = ParseHttpHead(text);
  const auto* fault = std::get_if<HttpFault>(&parsed);
  return fault == nullptr ? 0 : fault->status;
}
HttpHead HeadOf(const std::string& text) {
  const auto parsed = ParseHttpHead(text);
  const auto* head = std::get_if<HttpHead>(&parsed);
  if (head != nullptr) return *head;
  ADD_FAILURE() << std::get<HttpFault>(parsed).message << " in " << text;
  return {};
}

TEST(HttpHead, PathsArePercentDecodedAndQueriesAreNot) {
  const HttpRequest request = HeadOf(Get("/v1/models/org%2Ftiny%20%C3%a9?a=%2f")).request;
  EXPECT_EQ(request.path, "/v1/models/org/tiny \xc3\xa9");
  EXPECT_EQ(request.query, "a=%2f");
  for (const char* bad : {"/%", "/%4", "/%4g", "/%-1", "/%+1", "/%00", "/%0d%0aX:", "/%7f"}) {
    EXPECT_EQ(FaultOf(Get(bad)), 400) << bad;
  }
}

TEST(HttpHead, AProxysWholeAddressIsItsPath) {
  EXPECT_EQ(HeadOf(Get("http://other:80/health?x")).request.path, "/health");
  EXPECT_EQ(HeadOf(Get("HTTP://other")).request.path, "/");
  EXPECT_EQ(HeadOf(Get("http://other?x=1")).request.query, "x=1");
}

TEST(HttpHead, ThereIsExactlyOneHost) {
  EXPECT_EQ(HeadOf(Get("/", "Host: [::1]:80\r\n")).request.host, "[::1]:80");
  EXPECT_EQ(FaultOf("GET / HTTP/1.0\r\n\r\n"), 0);
  EXPECT_EQ(FaultOf(Get("/", "")), 400);
  EXPECT_EQ(FaultOf(Get("/", "Host: a\r\nHost: a\r\n")), 400);
  EXPECT_EQ(FaultOf("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
  for (const char* bad : {"Host: a b\r\n", "Host: a,b\r\n", "Host: a/b\r\n", "Host: u@a\r\n",
                          "Host : a\r\n", "Host: a\r\n b\r\n"}) {
    EXPECT_EQ(FaultOf(Get("/", bad)), 400) << bad;
  }
}

TEST(HttpHead, ABodysFramingIsOneLengthOrOneKnownCoding) {
  const auto framed = [](const std::string& fields) { return Get("/", "Host: x\r\n" + fields); };
  EXPECT_EQ(HeadOf(framed("Content-Length: 12\r\n")).length, 12u);
  EXPECT_TRUE(HeadOf(framed("transfer-encoding: \t Chunked \r\n")).chunked);
  EXPECT_FALSE(HeadOf(framed("")).has_body());
  const std::string te = "Transfer-Encoding: ", cl = "Content-Length: ";
  for (const std::string& bad : {te + "gzip\r\n",
                                 te + "identity\r\n",
                                 te + "gzip, chunked\r\n",
                                 te + "chunked, gzip\r\n",
                                 te + "chunked, chunked\r\n",
                                 te + "chunked;q=1\r\n",
                                 te + "\r\n",
                                 te + "xchunked\r\n",
                                 te + "chunked\r\n" + te + "chunked\r\n",
                                 te + "gzip\r\n" + te + "chunked\r\n",
                                 te + "identity\r\n" + te + "identity\r\n",
                                 te + "chunked\r\n" + cl + "3\r\n",
                                 cl + "3\r\n" + te + "chunked\r\n",
                                 cl + "0\r\n" + te + "gzip\r\n",
                                 cl + "3\r\n" + cl + "3\r\n",
                                 cl + "3\r\n" + cl + "4\r\n",
                                 cl + "3, 3\r\n",
                                 cl + "+3\r\n",
                                 cl + "-3\r\n",
                                 cl + "0x3\r\n",
                                 cl + "3 3\r\n",
                                 cl + "\r\n",
                                 cl + "18446744073709551616\r\n",
                                 te + "chunked\r\n ,gzip\r\n",
                                 std::string("Transfer-Encoding : chunked\r\n")}) {
    EXPECT_EQ(FaultOf(framed(bad)), 400) << bad;
  }
  EXPECT_EQ(FaultOf("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

TEST(HttpHead, NonsenseIsAFault) {
  for (const std::string& bad :
       {std::string("\r\n\r\n"), std::string("what is this\r\n\r\n"), Get("/", "Host: x\n"),
        Get("/", "Host: x\r\nX: a\rb\r\n"), Get("/", std::string("Host: x\r\nX: a\0b\r\n", 17)),
        std::string("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), std::string("GET  / HTTP/1.1\r\n\r\n"),
        Get("/", "Host: x\r\nno colon\r\n"), Get("/", "Host: x\r\n: empty\r\n")}) {
    EXPECT_EQ(FaultOf(bad), 400) << bad;
  }
}

TEST(HttpHead, ItsEndIsFoundHoweverItArrives) {
  const std::string text = Get("/") + "more";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const size_t first = FindHeadEnd(std::string_view(text).substr(0, cut), 0);
    EXPECT_EQ(first, cut < text.size() - 4 ? std::string::npos : text.size() - 4) << cut;
    EXPECT_EQ(FindHeadEnd(text, cut > 0 ? std::min(cut, text.size() - 5) : 0), text.size() - 4);
  }
}

// Steps through `text`, `piece` bytes at a time.
HttpBody::Step Feed(HttpBody& body, std::string_view text, size_t piece, std::string* rest) {
  HttpBody::Step step = HttpBody::Step::kMore;
  for (size_t at = 0; at < text.size() && step == HttpBody::Step::kMore; at += piece) {
    std::string_view bytes = text.substr(at, piece);
    step = body.Take(bytes);
    if (rest != nullptr)
      *rest = std::string(bytes) + std::string(text.substr(std::min(at + piece, text.size())));
  }
  return step;
}

TEST(HttpBody, ChunksAddUpHoweverTheyArrive) {
  const std::string text =
      "5\r\nhello\r\n00a;a=b;c=\"d e\"\r\n, world...\r\n1 ;x\r\n!\r\n0;last\r\nHost: y\r\nX: "
      "z\r\n\r\nGET";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    HttpBody body = HttpBody::InChunks(16);
    std::string rest;
    ASSERT_EQ(Feed(body, text, piece, &rest), HttpBody::Step::kDone) << piece;
    EXPECT_EQ(body.TakeContent(), "hello, world...!");
    EXPECT_EQ(rest, "GET") << "is the next request's";
  }
}

TEST(HttpBody, MalformedChunksAreRefused) {
  for (const std::string& bad :
       {std::string("\r\n"), std::string(";a\r\n"), std::string("g\r\n"), std::string("0x5\r\n"),
        std::string("-1\r\n"), std::string(" 5\r\n"), std::string("5 5\r\n"), std::string("5 \r\n"),
        std::string("5\n"), std::string("5\rx"), std::string("5;a\nb\r\n"), std::string("1\r\nab"),
        std::string("1\r\na\n"), std::string("0\r\nX: a\nY: b\r\n\r\n"), std::string("0\r\n\rx"),
        std::string("0;\0\r\n", 5)}) {
    HttpBody body = HttpBody::InChunks(100);
    EXPECT_EQ(Feed(body, bad, 1, nullptr), HttpBody::Step::kMalformed) << bad;
  }
}

// A decoder that kept a chunk's line and the trailers until their end would take all memory.
TEST(HttpBody, LinesBetweenChunksAndTrailersAreNotKeptAndEnd) {
  for (const std::string start :
       {"0;a=", "5;a=", "00000", "0\r\nX: ", "0\r\nX: a\r\nY: ", "1\r\na\r\n0;b="}) {
    HttpBody body = HttpBody::InChunks(100);
    ASSERT_EQ(Feed(body, start, 1, nullptr), HttpBody::Step::kMore);
    const size_t limit = HttpBody::kTrailersBytesMax + HttpBody::kChunkLineBytesMax;
    EXPECT_EQ(Feed(body, std::string(limit, '0'), 100, nullptr), HttpBody::Step::kTooLarge)
        << start;
    EXPECT_LT(body.content().capacity(), 100u);
  }
  HttpBody trailers = HttpBody::InChunks(100);
  ASSERT_EQ(Feed(trailers, "0\r\n", 1, nullptr), HttpBody::Step::kMore);
  HttpBody::Step step = HttpBody::Step::kMore;
  for (int i = 0; i < 10'000 && step == HttpBody::Step::kMore; ++i) {
    step = Feed(trailers, "X: y\r\n", 3, nullptr);
  }
  EXPECT_EQ(step, HttpBody::Step::kTooLarge);
}

// Each chunk and each of its lines keeps to its limit, and the body must end all the same.
TEST(HttpBody, TinyChunksWithLongLinesEnd) {
  HttpBody body = HttpBody::InChunks(1'000'000);
  const std::string chunk = "1;a=" + std::string(1000, 'x') + "\r\na\r\n";
  HttpBody::Step step = HttpBody::Step::kMore;
  int chunks = 0;
  for (; chunks < 10'000 && step == HttpBody::Step::kMore; ++chunks) {
    step = Feed(body, chunk, chunk.size(), nullptr);
  }
  EXPECT_EQ(step, HttpBody::Step::kTooLarge);
  EXPECT_LT(chunks, 3200);

  HttpBody bytes = HttpBody::InChunks(100'000);  // a chunk a byte is within the limit
  for (int i = 0; i < 100'000; ++i) {
    ASSERT_EQ(Feed(bytes, "1\r\na\r\n", 6, nullptr), HttpBody::Step::kMore) << i;
  }
  EXPECT_EQ(Feed(bytes, "0\r\n\r\n", 5, nullptr), HttpBody::Step::kDone);
}

TEST(HttpBody, ContentBeyondTheLimitIsTooLargeByItsChunksSize) {
  for (const std::string& bad : {std::string("65\r\n"), std::string("ffffffffffffffff\r\n"),
                                 std::string("10000000000000001"),
                                 std::string("64\r\n") + std::string(100, 'a') + "\r\n1\r\n"}) {
    HttpBody body = HttpBody::InChunks(100);
    EXPECT_EQ(Feed(body, bad, 7, nullptr), HttpBody::Step::kTooLarge) << bad;
  }
}

TEST(HttpBody, OneOfALengthLeavesWhatFollows) {
  HttpBody body = HttpBody::OfLength(3);
  std::string_view bytes = "abcGET";
  EXPECT_EQ(body.Take(bytes), HttpBody::Step::kDone);
  EXPECT_EQ(bytes, "GET");
  EXPECT_EQ(body.content(), "abc");
  HttpBody none = HttpBody::OfLength(0);
  EXPECT_EQ(none.Take(bytes), HttpBody::Step::kDone);
}

}  // namespace
}  // namespace engram::net
