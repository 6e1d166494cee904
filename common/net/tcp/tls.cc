#include "common/net/tcp/tls.h"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace engram::net {
namespace {

constexpr size_t kRecordBytesMax = 16 * 1024;
constexpr size_t kReadAheadBytes = 128 * 1024;  // received at once; several records
constexpr size_t kChannelBytes = 32;
// AES-GCM is safe for 2^24.5 records of one key (RFC 8446, 5.5).
constexpr uint64_t kRecordsPerKey = 1 << 23;

// OpenSSL's own socket BIO writes without MSG_NOSIGNAL: a peer that died would raise SIGPIPE.
int FdOf(BIO* bio) { return static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio))); }

int BioWrite(BIO* bio, const char* data, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t sent =
      ::send(FdOf(bio), data, static_cast<size_t>(size), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return static_cast<int>(sent);
}

int BioRead(BIO* bio, char* data, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t received = ::recv(FdOf(bio), data, static_cast<size_t>(size), MSG_DONTWAIT);
  if (received < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  return static_cast<int>(received);
}

// Alerts by which a peer says that it does not trust the certificate it was shown.
bool RefusesCertificate(unsigned long code) {
  switch (ERR_GET_REASON(code)) {
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
      return true;
    default:
      return false;
  }
}

long BioControl(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

const BIO_METHOD* SocketMethod() {
  static const BIO_METHOD* const kMethod = [] {
    BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "quiet socket");
    CHECK(method != nullptr);
    BIO_meth_set_write(method, &BioWrite);
    BIO_meth_set_read(method, &BioRead);
    BIO_meth_set_ctrl(method, &BioControl);
    return method;
  }();
  return kMethod;
}

}  // namespace

Result<std::unique_ptr<TlsSession>> TlsSession::Make(const Security& security, int fd, bool dials) {
  CHECK(security.tls());
  std::unique_ptr<TlsSession> session(new TlsSession());
  session->tls_ = SSL_new(security.context());
  BIO* bio = session->tls_ == nullptr ? nullptr : BIO_new(SocketMethod());
  if (bio == nullptr) return ResourceExhausted("TLS: no memory for a connection");
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(fd)));
  BIO_set_init(bio, 1);
  SSL_set_bio(session->tls_, bio, bio);
  SSL_set_read_ahead(session->tls_, 1);
  SSL_set_default_read_buffer_len(session->tls_, kReadAheadBytes);
  if (dials) {
    SSL_set_connect_state(session->tls_);
  } else {
    SSL_set_accept_state(session->tls_);
  }
  session->record_ = std::make_unique<std::byte[]>(kRecordBytesMax);
  return session;
}

TlsSession::~TlsSession() { SSL_free(tls_); }

TlsSession::Step TlsSession::Handshake() {
  ERR_clear_error();
  errno = 0;
  const int returned = SSL_do_handshake(tls_);
  if (returned == 1) return Step::kDone;
  if (Outcome(returned, "handshake") < 0) return Step::kFailed;
  return SSL_want_write(tls_) ? Step::kWrites : Step::kReads;
}

std::string TlsSession::Channel() const {
  std::string key(kChannelBytes, '\0');
  constexpr std::string_view kLabel = "EXPORTER-engram-mesh-challenge";
  CHECK_EQ(SSL_export_keying_material(tls_, reinterpret_cast<unsigned char*>(key.data()),
                                      key.size(), kLabel.data(), kLabel.size(), nullptr, 0, 0),
           1)
      << "TLS: no exported key";
  return key;
}

// 0 when the call is to be repeated, else -1 and why_.
ssize_t TlsSession::Outcome(int returned, std::string_view what) {
  const int error_number = errno;
  const int error = SSL_get_error(tls_, returned);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const bool checks = SSL_get_verify_mode(tls_) != SSL_VERIFY_NONE;
  if (const long verified = SSL_get_verify_result(tls_); checks && verified != X509_V_OK) {
    why_ =
        FailedPrecondition(fmt::format("TLS {}: the peer's certificate is not of this cluster: {}",
                                       what, X509_verify_cert_error_string(verified)));
  } else if (error == SSL_ERROR_ZERO_RETURN || (code == 0 && error_number == 0)) {
    why_ = Unavailable("the peer closed the connection");
  } else if (code == 0) {
    why_ = Unavailable(fmt::format("TLS {}: {}", what, std::strerror(error_number)));
  } else if (RefusesCertificate(code)) {
    why_ = FailedPrecondition(
        fmt::format("TLS {}: the other side refuses this process' certificate ({}): have both "
                    "signed by the authority in security.tls_ca",
                    what, ERR_reason_error_string(code)));
  } else {
    const char* reason = ERR_reason_error_string(code);
    why_ =
        FailedPrecondition(fmt::format("TLS {}: {}", what, reason == nullptr ? "failed" : reason));
  }
  return -1;
}

ssize_t TlsSession::Receive(std::span<std::byte> into) {
  size_t received = 0;
  while (received < into.size()) {
    ERR_clear_error();
    errno = 0;
    size_t bytes = 0;
    const int returned = SSL_read_ex(tls_, into.data() + received, into.size() - received, &bytes);
    received += bytes;
    if (returned == 1) continue;
    may_have_more_ = false;
    if (Outcome(returned, "receiving") == 0) break;
    if (received == 0) return -1;
    may_have_more_ = true;  // the end, which the next call reports
    break;
  }
  if (received == into.size()) may_have_more_ = true;
  return static_cast<ssize_t>(received);
}

// A peer that closed may have sent the reason, which says more than the failed write.
void TlsSession::HearLastWord() {
  std::byte byte{};
  size_t bytes = 0;
  ERR_clear_error();
  errno = 0;
  const int returned = SSL_read_ex(tls_, &byte, sizeof(byte), &bytes);
  if (returned != 1 && SSL_get_error(tls_, returned) == SSL_ERROR_SSL) {
    Outcome(returned, "receiving");
  }
}

// The stream's next bytes, at most a record: in place when a piece holds enough, else joined.
std::span<const std::byte> TlsSession::NextRecord(std::span<const iovec> pieces) {
  const iovec& first = pieces.front();
  if (first.iov_len >= kRecordBytesMax || pieces.size() == 1) {
    return {static_cast<const std::byte*>(first.iov_base),
            std::min(first.iov_len, kRecordBytesMax)};
  }
  size_t length = 0;
  for (const iovec& piece : pieces) {
    const size_t part = std::min(piece.iov_len, kRecordBytesMax - length);
    if (part > 0) std::memcpy(record_.get() + length, piece.iov_base, part);
    length += part;
  }
  return {record_.get(), length};
}

// Record by record until the pieces are sent or the socket is full. A record that could not be
// written is offered again by the next call: its bytes are the stream's next.
ssize_t TlsSession::Send(std::span<const iovec> pieces) {
  constexpr size_t kPiecesMax = 32;
  iovec rest[kPiecesMax];
  CHECK_LE(pieces.size(), kPiecesMax);
  std::copy(pieces.begin(), pieces.end(), rest);
  std::span<iovec> left(rest, pieces.size());
  ssize_t sent = 0;
  while (true) {
    while (!left.empty() && left.front().iov_len == 0) left = left.subspan(1);
    if (left.empty()) return sent;
    const std::span<const std::byte> record = NextRecord(left);
    ERR_clear_error();
    errno = 0;
    size_t written = 0;
    const int returned = SSL_write_ex(tls_, record.data(), record.size(), &written);
    if (returned != 1) {
      if (Outcome(returned, "sending") == 0) return sent;
      HearLastWord();
      return -1;
    }
    if (++records_ % kRecordsPerKey == 0) SSL_key_update(tls_, SSL_KEY_UPDATE_NOT_REQUESTED);
    sent += static_cast<ssize_t>(written);
    while (written > 0) {
      const size_t part = std::min(written, left.front().iov_len);
      left.front().iov_base = static_cast<std::byte*>(left.front().iov_base) + part;
      left.front().iov_len -= part;
      written -= part;
      if (left.front().iov_len == 0) left = left.subspan(1);
    }
  }
}

}  // namespace engram::net
