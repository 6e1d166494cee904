// Loading the cluster's secret and certificates: every mistake is named with its file.
#include "common/net/tcp/security.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/common/net/tcp/harness.h"

namespace engram::net {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::WriteFile;

class LoadingSecurity : public testing::Test {
 protected:
  void SetUp() override { folder_ = testing_support::MakeTempDir("security"); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string File(const std::string& name, const std::string& content, mode_t mode = 0600) {
    const std::string path = folder_ + "/" + name;
    WriteFile(path, content);
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }
  static void ExpectSays(const SecurityOptions& options, const std::string& file,
                         const std::string& text) {
    const auto loaded = LoadSecurity(options);
    ASSERT_FALSE(loaded.ok()) << file;
    EXPECT_THAT(loaded.status().message(), AllOf(HasSubstr(file), HasSubstr(text)));
    EXPECT_EQ(loaded.status().message().find('\n'), std::string::npos);
  }
  static SecurityOptions Secret(const std::string& file) { return {file, "", "", ""}; }
  static SecurityOptions Tls() {
    const Certificates& certificates = Certificates::Get();
    return {"", certificates.node.certificate, certificates.node.key,
            certificates.ours.certificate};
  }
  std::string folder_;
};

TEST_F(LoadingSecurity, NothingGivenIsNoSecretAndNoTls) {
  const auto loaded = LoadSecurity({});
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ((*loaded)->secret(), "");
  EXPECT_FALSE((*loaded)->tls());
}

TEST_F(LoadingSecurity, ASecretIsReadWithoutItsLineBreak) {
  const std::string secret(kSecretBytesMin, 's');
  for (const std::string& text : {secret, secret + "\n"}) {
    const auto loaded = LoadSecurity(Secret(File("secret", text)));
    ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
    EXPECT_EQ((*loaded)->secret(), secret);
  }
  const std::string longest(kSecretBytesMax, 's');
  EXPECT_EQ((*LoadSecurity(Secret(File("secret", longest + "\n"))))->secret(), longest);
}

TEST_F(LoadingSecurity, BadSecretFilesAreNamed) {
  ExpectSays(Secret("/nowhere/secret"), "/nowhere/secret", "No such file");
  ExpectSays(Secret(folder_), folder_, "Is a directory");
  const std::string brief = File("brief", std::string(kSecretBytesMin - 1, 's') + "\n");
  ExpectSays(Secret(brief), brief, "15 bytes");
  ExpectSays(Secret(brief), brief, "openssl rand");
  const std::string huge = File("huge", std::string(kSecretBytesMax + 1, 's'));
  ExpectSays(Secret(huge), huge, "over 4096 bytes");
  for (const mode_t mode : {0640u, 0604u, 0620u, 0666u}) {
    const std::string open = File("open", std::string(32, 's'), mode);
    ExpectSays(Secret(open), open, "chmod 600 " + open);
  }
}

TEST_F(LoadingSecurity, CertificateKeyAndAuthorityAreLoaded) {
  const auto loaded = LoadSecurity(Tls());
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_TRUE((*loaded)->tls());
}

TEST_F(LoadingSecurity, APartOfTlsIsRefused) {
  for (std::string SecurityOptions::*left_out :
       {&SecurityOptions::tls_key, &SecurityOptions::tls_certificate}) {
    SecurityOptions options = Tls();
    options.*left_out = "";
    ExpectSays(options, "TLS needs a certificate and its key", "only a part is given");
  }
  ExpectSays({"", "", "", Tls().tls_ca}, "TLS needs a certificate", "only a part is given");
}

TEST_F(LoadingSecurity, BadTlsFilesAreNamed) {
  for (std::string SecurityOptions::*key :
       {&SecurityOptions::tls_certificate, &SecurityOptions::tls_key, &SecurityOptions::tls_ca}) {
    SecurityOptions options = Tls();
    options.*key = "/nowhere/file.pem";
    ExpectSays(options, "/nowhere/file.pem", "No such file");
    options.*key = File("noise.pem", "no certificate at all");
    ExpectSays(options, options.*key, "readable PEM");
    options.*key = File("empty.pem", "");
    ExpectSays(options, options.*key, "readable PEM");
  }
}

TEST_F(LoadingSecurity, AKeyOfAnotherCertificateIsNamedWithBoth) {
  SecurityOptions options = Tls();
  options.tls_key = Certificates::Get().stranger.key;
  ExpectSays(options, options.tls_key, "belong to certificate " + options.tls_certificate);
}

TEST_F(LoadingSecurity, AKeyBehindAPassphraseIsAnErrorAndNoQuestion) {
  SecurityOptions options = Tls();
  const std::string locked = folder_ + "/locked.key";
  const auto made = testing_support::RunToEnd({"/usr/bin/openssl", "ec", "-in", options.tls_key,
                                               "-aes128", "-passout", "pass:word", "-out", locked},
                                              folder_);
  ASSERT_EQ(made.exit_code, 0) << made.err;
  options.tls_key = locked;
  ExpectSays(options, locked, "without a passphrase");
}

}  // namespace
}  // namespace engram::net
