// What the processes of one cluster share to trust each other: a secret from a file, and
// certificates for TLS 1.3. Loaded once at start, then only read, by any thread.
#pragma once

#include <memory>
#include <string>

#include "common/base/status.h"

struct ssl_ctx_st;  // OpenSSL's SSL_CTX

namespace engram::net {

// Files; all empty = no secret (every host that reaches the ports may read rows) and no TLS.
struct SecurityOptions {
  std::string secret_file;  // the cluster's secret, at least 16 bytes, readable by its owner only
  std::string tls_certificate;  // PEM chain of this process; TLS is on when it is given
  std::string tls_key;          // PEM
  // PEM; every peer must show a certificate signed by it. Without it certificates are not checked,
  // and only the secret tells friend from stranger.
  std::string tls_ca;
};

inline constexpr size_t kSecretBytesMin = 16;
inline constexpr size_t kSecretBytesMax = 4096;

class Security {
 public:
  Security() = default;  // no secret, no TLS
  Security(std::string secret, std::shared_ptr<ssl_ctx_st> context)
      : secret_(std::move(secret)), context_(std::move(context)) {}

  const std::string& secret() const { return secret_; }
  bool tls() const { return context_ != nullptr; }
  ssl_ctx_st* context() const { return context_.get(); }  // null without TLS

 private:
  std::string secret_;
  std::shared_ptr<ssl_ctx_st> context_;  // counted by OpenSSL's users as well
};

// The errors name the file and what to do. A final line break of the secret file does not count.
Result<std::shared_ptr<const Security>> LoadSecurity(const SecurityOptions& options);

}  // namespace engram::net
