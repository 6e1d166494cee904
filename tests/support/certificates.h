// Certificates for tests of TLS, made by the openssl program: authorities and what they signed, as
// PEM files.
#pragma once

#include <string>

namespace engram::testing_support {

struct CertificateFiles {
  std::string certificate;
  std::string key;
};

// `folder`/`name`.pem and `folder`/`name`.key of an authority that signs itself. Fails the test
// when openssl does.
CertificateFiles MakeAuthority(const std::string& folder, const std::string& name);
// The same of a process, signed by `authority`. `hosts`, as "DNS:localhost,IP:127.0.0.1": names
// that its clients check. `subject`: empty for "/CN=" and the name.
CertificateFiles MakeCertificate(const std::string& folder, const std::string& name,
                                 const CertificateFiles& authority, const std::string& hosts = "",
                                 const std::string& subject = "");

}  // namespace engram::testing_support
