#include "common/io/host_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace engram::io {
namespace {

using testing::HasSubstr;

TEST(HostPort, IsReadStrictly) {
  EXPECT_EQ(ParseHostPort("a.b:7400")->host, "a.b");
  EXPECT_EQ(ParseHostPort("a.b:7400")->port, 7400);
  EXPECT_EQ(ParseHostPort("[::1]:65535")->host, "::1");
  EXPECT_EQ(ParseHostPort("127.0.0.1:0")->port, 0);
  for (const char* address : {"a.b:7400", "[::1]:65535", "127.0.0.1:0"}) {
    const auto parsed = ParseHostPort(address);
    EXPECT_EQ(FormatHostPort(parsed->host, parsed->port), address) << "as a ready line says it";
  }
  for (const std::string bad : {"", "a", "a:", ":1", "a:65536", "a:-1", "a:1x", "a: 1", "::1:5",
                                "[::1]", "[a]:1", "[]:1", "a b:1"}) {
    const auto parsed = ParseHostPort(bad);
    ASSERT_EQ(parsed.status().code(), Code::kInvalidArgument) << bad;
    EXPECT_THAT(parsed.status().message(), HasSubstr("\"" + bad + "\""));
  }
}

}  // namespace
}  // namespace engram::io
