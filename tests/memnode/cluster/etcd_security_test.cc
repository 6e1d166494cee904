// The membership over an etcd with TLS, users and passwords.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/memnode/cluster/etcd_fixture.h"
#include "tests/memnode/cluster/states.h"
#include "tests/support/certificates.h"

namespace engram::memnode {
namespace {

using testing::HasSubstr;
using testing_support::Eventually;
using testing_support::MakeTempDir;
using testing_support::WriteFile;

// TLS both ways, and a user that may touch its prefix only.
class EtcdSecurityTest : public EtcdMembershipTest {
 protected:
  void SetUp() override {
    EtcdMembershipTest::SetUp();
    if (IsSkipped()) return;
    const auto authority = testing_support::MakeAuthority(folder_, "ca");
    const auto server = testing_support::MakeCertificate(folder_, "server", authority,
                                                         "DNS:localhost,IP:127.0.0.1");
    // The gateway takes no certificate with a CN once etcd has users.
    const auto client =
        testing_support::MakeCertificate(folder_, "client", authority, "", "/O=engram");
    etcd_ = std::make_unique<EtcdServers>(folder_, 1, EtcdTls{authority.certificate, server});
    files_ = etcd_->Config();
    files_.ca_file = authority.certificate;
    files_.cert_file = client.certificate;
    files_.key_file = client.key;
    etcd_->AwaitAnswers(files_);
    for (const auto& [path, body] : std::vector<std::pair<std::string, std::string>>{
             {"user/add", R"({"name":"root","password":"r"})"},
             {"user/grant", R"({"user":"root","role":"root"})"},
             {"user/add", R"({"name":"engram","password":"a pass word"})"},
             {"role/add", R"({"name":"keeper"})"},
             {"role/grant",
              fmt::format(R"({{"name":"keeper","perm":{{"permType":"READWRITE","key":"{}",)"
                          R"("range_end":"{}"}}}}}})",
                          Base64("/engram/"), Base64("/engram0"))},
             {"user/grant", R"({"user":"engram","role":"keeper"})"},
             {"auth/enable", "{}"}}) {
      const std::string whole = path == "auth/enable" ? "/v3/auth/enable" : "/v3/auth/" + path;
      const Status done = etcd_->Post(0, whole, body, files_);
      ASSERT_TRUE(done.ok()) << done.message();
    }
    config_ = files_;
    config_.user = "engram";
    config_.password_file = Password("right", "a pass word\n");
  }
  std::string Password(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    WriteFile(path, text);
    std::filesystem::permissions(path, std::filesystem::perms(0600));
    return path;
  }

  EtcdConfig files_;   // without a user
  EtcdConfig config_;  // of the user
};

TEST_F(EtcdSecurityTest, WorksByTlsWithAUserAndRenewsItsToken) {
  Told told;
  const auto member = Member(config_);
  ASSERT_TRUE(member->Watch(told.Take()).ok());
  const Status proposed = member->Propose(FirstState());
  ASSERT_TRUE(proposed.ok()) << proposed.message();
  EXPECT_TRUE(told.Awaits(FirstState()));
  EXPECT_TRUE(BecomesHealthy(*member));

  // etcd knows no token of its last run.
  etcd_->Kill(0);
  etcd_->Start(0);
  etcd_->AwaitAnswers(config_);
  const ClusterState adding = Adding(FirstState(), "m2");
  const Status again = member->Propose(adding);
  EXPECT_TRUE(again.ok()) << again.message();
  EXPECT_TRUE(told.Awaits(adding));
  EXPECT_TRUE(BecomesHealthy(*member));

  // By a name as well, which is looked up.
  EtcdConfig named = config_;
  named.endpoints[0].replace(named.endpoints[0].find("127.0.0.1"), 9, "localhost");
  EXPECT_TRUE(*Member(named)->Read() == adding);
}

TEST_F(EtcdSecurityTest, SaysWhyItIsRefused) {
  EtcdConfig wrong = config_;
  wrong.password_file = Password("wrong", "another");
  const Status password = Member(wrong)->Read().status();
  EXPECT_EQ(password.code(), Code::kFailedPrecondition);
  EXPECT_THAT(password.message(), HasSubstr("user engram"));
  EXPECT_THAT(password.message(), HasSubstr("authentication failed"));

  EtcdConfig elsewhere = config_;
  elsewhere.prefix = "/other/";
  const Status permission = Member(elsewhere)->Read().status();
  EXPECT_EQ(permission.code(), Code::kFailedPrecondition);
  EXPECT_THAT(permission.message(), HasSubstr("permission denied"));

  const Status nameless = Member(files_)->Read().status();
  EXPECT_EQ(nameless.code(), Code::kFailedPrecondition);
  EXPECT_THAT(nameless.message(), HasSubstr("permission denied"));

  EtcdConfig stranger = config_;
  stranger.ca_file = testing_support::MakeAuthority(folder_, "other").certificate;
  const Status untrusted = Member(stranger)->Read().status();
  EXPECT_EQ(untrusted.code(), Code::kUnavailable);
  EXPECT_THAT(untrusted.message(), HasSubstr("TLS handshake: "));
  EXPECT_THAT(untrusted.message(), HasSubstr("certificate"));

  EtcdConfig unnamed = config_;
  unnamed.endpoints[0].replace(unnamed.endpoints[0].find("127.0.0.1"), 9, "127.0.0.2");
  // No such address of the server, or no such name in its certificate.
  EXPECT_EQ(Member(unnamed)->Read().status().code(), Code::kUnavailable);

  const auto with_cn = testing_support::MakeCertificate(folder_, "with_cn",
                                                        {folder_ + "/ca.pem", folder_ + "/ca.key"});
  EtcdConfig common_name = config_;
  common_name.cert_file = with_cn.certificate;
  common_name.key_file = with_cn.key;
  EXPECT_THAT(Member(common_name)->Read().status().message(),
              HasSubstr("CommonName of client sending a request against gateway"));

  EtcdConfig bare = config_;
  bare.cert_file = bare.key_file = "";
  EXPECT_EQ(Member(bare)->Read().status().code(), Code::kUnavailable);
}

TEST_F(EtcdSecurityTest, TrustsNoServerOfAnotherName) {
  const auto other = testing_support::MakeCertificate(
      folder_, "elsewhere", {folder_ + "/ca.pem", folder_ + "/ca.key"}, "DNS:elsewhere");
  etcd_ = std::make_unique<EtcdServers>(MakeTempDir("etcd_elsewhere"), 1,
                                        EtcdTls{folder_ + "/ca.pem", other});
  EtcdConfig config = config_;
  config.endpoints = etcd_->Config().endpoints;
  const auto member = Member(config);
  Status status;
  EXPECT_TRUE(Eventually([&] {
    status = member->Read().status();
    return status.message().find("certificate") != std::string::npos;
  })) << status.message();
  EXPECT_EQ(status.code(), Code::kUnavailable);
}

}  // namespace
}  // namespace engram::memnode
