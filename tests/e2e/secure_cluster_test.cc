// A cluster behind a secret and TLS: serves peers that have both; soon refuses every other one with
// one line that names the node and what to do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "tests/support/certificates.h"
#include "tests/support/cluster.h"

namespace engram {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing_support::Binary;
using testing_support::CertificateFiles;
using testing_support::Cluster;
using testing_support::Finished;
using testing_support::RunToEnd;

using Sets = std::vector<std::string>;  // "--set", "a=b", ...

class SecureCluster : public testing::Test {
 protected:
  void SetUp() override {
    work_dir_ = testing_support::MakeTempDir("secure_cluster");
    model_ = testing_support::MakeModel(work_dir_, "tiny", "v41", 7);
    ours_ = testing_support::MakeAuthority(work_dir_, "our-authority");
    node_ = testing_support::MakeCertificate(work_dir_, "node", ours_);
    secret_ = SecretFile("secret", "the secret of this cluster\n");
    cluster_ = std::make_unique<Cluster>(work_dir_, model_, 2, Secured(secret_, node_));
  }
  void TearDown() override {
    cluster_.reset();
    std::filesystem::remove_all(work_dir_);
  }

  std::string SecretFile(const std::string& name, const std::string& secret) const {
    const std::string path = work_dir_ + "/" + name;
    testing_support::WriteFile(path, secret);
    EXPECT_EQ(::chmod(path.c_str(), 0600), 0);
    return path;
  }
  static Sets Tls(const CertificateFiles& own, const std::string& authority) {
    return {"--set", "security.tls_certificate=" + own.certificate,
            "--set", "security.tls_key=" + own.key,
            "--set", "security.tls_ca=" + authority};
  }
  Sets Secured(const std::string& secret, const CertificateFiles& own) const {
    Sets sets = Tls(own, ours_.certificate);
    sets.insert(sets.end(), {"--set", "security.secret_file=" + secret});
    return sets;
  }
  Finished Generate(const Sets& sets) const {
    std::vector<std::string> argv = {Binary("engram-compute"),
                                     "generate",
                                     "--model",
                                     model_,
                                     "--prompt",
                                     "hello there",
                                     "--max-tokens",
                                     "8",
                                     "--ignore-eos",
                                     "--memnodes",
                                     cluster_->memnodes()};
    argv.insert(argv.end(), sets.begin(), sets.end());
    return RunToEnd(argv, work_dir_, 20s);
  }
  Finished Load(const Sets& sets) const {
    std::vector<std::string> argv = {
        Binary("engram-load"), "--model", model_,      "--memnodes", cluster_->memnodes(),
        "--seconds",           "0.3",     "--warm-up", "0"};
    argv.insert(argv.end(), sets.begin(), sets.end());
    return RunToEnd(argv, work_dir_, 20s);
  }
  // Exit code 1 and one line of `program` on stderr that names a node and says `what`.
  void ExpectRefused(const Finished& run, const std::string& program,
                     const std::string& what) const {
    EXPECT_EQ(run.exit_code, 1) << run.err;
    const size_t at = run.err.find(program + ": ");
    ASSERT_NE(at, std::string::npos) << run.err;
    const std::string line = run.err.substr(at);
    EXPECT_EQ(std::ranges::count(line, '\n'), 1) << run.err;
    EXPECT_THAT(line, AllOf(HasSubstr("memory node 127.0.0.1:"), HasSubstr(what)));
  }

  std::string work_dir_, model_, secret_;
  CertificateFiles ours_, node_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(SecureCluster, ServesWhoHasTheSecretAndACertificate) {
  const Sets secured = Secured(secret_, testing_support::MakeCertificate(work_dir_, "b", ours_));
  for (const std::string path : {"gather", "auto"}) {
    Sets sets = secured;
    sets.insert(sets.end(), {"--set", "lookup.path=" + path});
    const Finished generated = Generate(sets);
    EXPECT_EQ(generated.exit_code, 0) << generated.err;
  }
  const Finished loaded = Load(secured);
  EXPECT_EQ(loaded.exit_code, 0) << loaded.out << loaded.err;
}

TEST_F(SecureCluster, RefusesEverybodyElseWithOneClearLine) {
  const Sets tls = Tls(node_, ours_.certificate);
  const std::string other = SecretFile("other", "the secret of another cluster\n");
  const Sets other_secret = Secured(other, node_);
  const CertificateFiles others = testing_support::MakeAuthority(work_dir_, "other-authority");
  const Sets stranger =
      Secured(secret_, testing_support::MakeCertificate(work_dir_, "stranger", others));
  for (const auto& [sets, what] : std::vector<std::pair<Sets, std::string>>{
           {other_secret, "same secret file"},
           {tls, "requires a secret"},
           {stranger, "refuses this process' certificate"},
           {{"--set", "security.secret_file=" + secret_}, "is it off there as well"},
           {{}, "is it off there as well"}}) {
    ExpectRefused(Generate(sets), "engram-compute", what);
    ExpectRefused(Load(sets), "engram-load", what);
  }
  EXPECT_TRUE(cluster_->node(0).Running() && cluster_->node(1).Running());
  EXPECT_EQ(Generate(Secured(secret_, node_)).exit_code, 0) << "after all that were refused";
}

// A stranger's raw import, prepare and commit requests replace no rows.
TEST_F(SecureCluster, ANodeThatOthersReachTakesNoToolsWithoutASecret) {
  for (const auto& [host, taken] :
       std::vector<std::pair<std::string, bool>>{{"127.0.0.1", true}, {"0.0.0.0", false}}) {
    const Cluster open(work_dir_ + "/", model_, 1,
                       {"--set", "control.listen=" + host + ":0", "--set",
                        "store.path=" + work_dir_ + "/store-" + host});
    const std::string port = open.control(0).substr(open.control(0).rfind(':') + 1);
    const Finished run =
        RunToEnd({Binary("engramctl"), "versions", "--nodes", "127.0.0.1:" + port}, work_dir_, 20s);
    EXPECT_EQ(run.exit_code, taken ? 0 : 1) << host << ": " << run.err;
    EXPECT_THAT(run.err, HasSubstr(taken ? "" : "security.secret_file")) << host;
  }
}

TEST_F(SecureCluster, DoesNotStartWithASecretOthersMayRead) {
  const std::string open = SecretFile("open", "the secret of this cluster\n");
  ASSERT_EQ(::chmod(open.c_str(), 0644), 0);
  std::vector<std::string> argv = {Binary("engram-memnode"),
                                   "--set",
                                   "model.path=" + model_,
                                   "--set",
                                   "store.path=" + work_dir_ + "/store-open",
                                   "--set",
                                   "control.listen=127.0.0.1:0"};
  for (const std::string& set : Secured(open, node_)) argv.push_back(set);
  const Finished run = RunToEnd(argv, work_dir_, 20s);
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, HasSubstr("chmod 600 " + open));
}

}  // namespace
}  // namespace engram
