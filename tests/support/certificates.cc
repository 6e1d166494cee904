#include "tests/support/certificates.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/process.h"

namespace engram::testing_support {
namespace {

CertificateFiles Make(const std::string& folder, const std::string& name,
                      const std::string& subject, const std::vector<std::string>& more) {
  const CertificateFiles files = {folder + "/" + name + ".pem", folder + "/" + name + ".key"};
  std::vector<std::string> argv = {"/usr/bin/openssl",
                                   "req",
                                   "-x509",
                                   "-newkey",
                                   "ec",
                                   "-pkeyopt",
                                   "ec_paramgen_curve:prime256v1",
                                   "-nodes",
                                   "-days",
                                   "2",
                                   "-subj",
                                   subject,
                                   "-keyout",
                                   files.key,
                                   "-out",
                                   files.certificate};
  argv.insert(argv.end(), more.begin(), more.end());
  const Finished made = RunToEnd(argv, folder);
  EXPECT_EQ(made.exit_code, 0) << made.err;
  return files;
}

}  // namespace

CertificateFiles MakeAuthority(const std::string& folder, const std::string& name) {
  return Make(folder, name, "/CN=" + name, {"-addext", "keyUsage=critical,keyCertSign"});
}

CertificateFiles MakeCertificate(const std::string& folder, const std::string& name,
                                 const CertificateFiles& authority, const std::string& hosts,
                                 const std::string& subject) {
  std::vector<std::string> more = {"-CA",     authority.certificate,
                                   "-CAkey",  authority.key,
                                   "-addext", "basicConstraints=critical,CA:FALSE"};
  if (!hosts.empty()) more.insert(more.end(), {"-addext", "subjectAltName=" + hosts});
  return Make(folder, name, subject.empty() ? "/CN=" + name : subject, more);
}

}  // namespace engram::testing_support
