// The settings of an etcd.
#include "memnode/cluster/etcd_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace engram::memnode {
namespace {

using testing::HasSubstr;

EtcdConfig Good() {
  EtcdConfig config;
  config.endpoints = {"10.0.0.1:2379", "http://[::1]:2379"};
  return config;
}

TEST(EtcdConfig, SchemesOrFilesAskForTls) {
  EXPECT_TRUE(EtcdConfig().Validate().ok());
  EXPECT_FALSE(EtcdConfig().used());
  EtcdConfig config = Good();
  ASSERT_TRUE(config.Validate().ok());
  EXPECT_TRUE(config.used());
  EXPECT_EQ(config.Endpoints()[0].address, "10.0.0.1:2379");
  EXPECT_EQ(config.Endpoints()[1].address, "[::1]:2379");
  EXPECT_FALSE(config.Endpoints()[0].tls || config.Endpoints()[1].tls);
  config.endpoints = {"https://keeper:2379"};
  EXPECT_TRUE(config.Endpoints()[0].tls);
  config = Good();
  config.endpoints.pop_back();
  config.ca_file = "/ca.pem";
  ASSERT_TRUE(config.Validate().ok());
  EXPECT_TRUE(config.Endpoints()[0].tls);
}

TEST(EtcdConfig, SaysWhatIsWrongWithIt) {
  const auto refused = [](const std::function<void(EtcdConfig&)>& spoil) {
    EtcdConfig config = Good();
    spoil(config);
    const Status status = config.Validate();
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  };
  for (const char* endpoint : {"", "keeper", "keeper:0", "keeper:x", "ftp://keeper:1", "https://",
                               "http://keeper:1/", "keeper:1 "}) {
    EXPECT_THAT(refused([&](EtcdConfig& c) { c.endpoints = {endpoint}; }),
                HasSubstr("etcd.endpoints"));
  }
  EXPECT_THAT(refused([](EtcdConfig& c) { c.ca_file = "/ca.pem"; }),
              HasSubstr("write https://[::1]:2379"));
  EXPECT_THAT(refused([](EtcdConfig& c) { c.endpoints.assign(17, "a:1"); }), HasSubstr("17"));
  for (const char* prefix : {"", "/", "engram/", "/engram"}) {
    EXPECT_THAT(refused([&](EtcdConfig& c) { c.prefix = prefix; }), HasSubstr("etcd.prefix"));
  }
  EXPECT_THAT(refused([](EtcdConfig& c) { c.user = "u"; }),
              HasSubstr("etcd.user is set and etcd.password_file is not"));
  EXPECT_THAT(refused([](EtcdConfig& c) { c.password_file = "/p"; }),
              HasSubstr("etcd.password_file is set and etcd.user is not"));
  EXPECT_THAT(refused([](EtcdConfig& c) { c.key_file = "/k"; }),
              HasSubstr("etcd.key_file is set and etcd.cert_file is not"));
}

}  // namespace
}  // namespace engram::memnode
