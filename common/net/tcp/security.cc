#include "common/net/tcp/security.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/base/owned_fd.h"

namespace engram::net {
namespace {

Result<std::string> ReadSecret(const std::string& path) {
  const OwnedFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    return NotFound(fmt::format("cluster secret file {}: {}", path, std::strerror(errno)));
  }
  struct stat about = {};
  std::string text(kSecretBytesMax + 2, '\0');
  ssize_t bytes = ::fstat(file.get(), &about);
  if (bytes == 0) bytes = ::read(file.get(), text.data(), text.size());
  if (bytes < 0) {
    return Unavailable(fmt::format("cluster secret file {}: {}", path, std::strerror(errno)));
  }
  if ((about.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return FailedPrecondition(
        fmt::format("cluster secret file {} is open to other users (mode {:03o}): chmod 600 {}",
                    path, about.st_mode & 0777, path));
  }
  text.resize(static_cast<size_t>(bytes));
  if (text.ends_with('\n')) text.pop_back();
  if (text.size() >= kSecretBytesMin && text.size() <= kSecretBytesMax) return text;
  return InvalidArgument(
      fmt::format("cluster secret file {} holds {}{} bytes, must be {}..{}: make one with "
                  "\"openssl rand -hex 32\"",
                  path, text.size() > kSecretBytesMax ? "over " : "",
                  std::min(text.size(), kSecretBytesMax), kSecretBytesMin, kSecretBytesMax));
}

// The first of OpenSSL's complaints; empties its list.
Status TlsError(std::string_view what) {
  const unsigned long code = ERR_get_error();
  const char* reason = ERR_reason_error_string(code);
  const char* why = ERR_SYSTEM_ERROR(code) ? std::strerror(ERR_GET_REASON(code)) : reason;
  const std::string text = why == nullptr ? "no reason given" : why;
  ERR_clear_error();
  return InvalidArgument(fmt::format("TLS: {}: {}", what, text));
}

Result<std::shared_ptr<SSL_CTX>> MakeContext(const SecurityOptions& options) {
  ERR_clear_error();
  const std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_method()), &SSL_CTX_free);
  if (context == nullptr) return TlsError("no context");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_num_tickets(context.get(), 0);  // sessions are not resumed
  // Sends go on after a part, from wherever the rest then lies.
  SSL_CTX_set_mode(context.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (SSL_CTX_use_certificate_chain_file(context.get(), options.tls_certificate.c_str()) != 1) {
    return TlsError(
        fmt::format("certificate file {}, which must be readable PEM", options.tls_certificate));
  }
  // A key behind a passphrase is an error, not a question on the terminal.
  SSL_CTX_set_default_passwd_cb(context.get(), [](char*, int, int, void*) { return -1; });
  if (SSL_CTX_use_PrivateKey_file(context.get(), options.tls_key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return TlsError(
        fmt::format("key file {}, which must be readable PEM without a passphrase and "
                    "belong to certificate {}",
                    options.tls_key, options.tls_certificate));
  }
  if (options.tls_ca.empty()) return context;
  if (SSL_CTX_load_verify_locations(context.get(), options.tls_ca.c_str(), nullptr) != 1) {
    return TlsError(fmt::format("CA file {}, which must be readable PEM", options.tls_ca));
  }
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return context;
}

}  // namespace

Result<std::shared_ptr<const Security>> LoadSecurity(const SecurityOptions& options) {
  std::string secret;
  if (!options.secret_file.empty()) {
    ASSIGN_OR_RETURN(secret, ReadSecret(options.secret_file));
  }
  if (options.tls_certificate.empty() != options.tls_key.empty() ||
      (options.tls_certificate.empty() && !options.tls_ca.empty())) {
    return InvalidArgument(
        "TLS needs a certificate and its key (and, to check the others', a CA): only a part is "
        "given");
  }
  std::shared_ptr<SSL_CTX> context;
  if (!options.tls_certificate.empty()) {
    ASSIGN_OR_RETURN(context, MakeContext(options));
  }
  return std::shared_ptr<const Security>(
      std::make_shared<Security>(std::move(secret), std::move(context)));
}

}  // namespace engram::net
