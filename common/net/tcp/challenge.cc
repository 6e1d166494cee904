#include "common/net/tcp/challenge.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstring>

#include "common/base/random_bytes.h"

namespace engram::net {
namespace {

constexpr std::string_view kMagic = "ENGRM";
constexpr size_t kPrefixBytes = 8;  // magic, version, purpose, verdict
constexpr size_t kNonceBytes = 32;
constexpr size_t kIdBytes = sizeof(EndpointId);
constexpr size_t kProofBytes = 32;
constexpr size_t kOpeningBytes = kPrefixBytes + kNonceBytes + 2 * kIdBytes;
constexpr size_t kAnswerBytes = kPrefixBytes + kNonceBytes + kIdBytes;
constexpr size_t kAcceptorProofBytes = kPrefixBytes + kProofBytes;

std::string_view BytesOf(const EndpointId& id) {
  return {reinterpret_cast<const char*>(id.data()), id.size()};
}

EndpointId IdAt(std::string_view message, size_t offset) {
  EndpointId id;
  std::memcpy(id.data(), message.data() + offset, id.size());
  return id;
}

}  // namespace

EndpointId RandomEndpointId() { return IdAt(RandomBytes(kIdBytes), 0); }

Challenge Challenge::Dial(ChallengePurpose purpose, std::string secret, std::string channel,
                          const EndpointId& own, const EndpointId& wanted) {
  Challenge challenge;
  challenge.purpose_ = purpose;
  challenge.secret_ = std::move(secret);
  challenge.channel_ = std::move(channel);
  challenge.own_id_ = own;
  challenge.wanted_id_ = wanted;
  challenge.step_ = Step::kAnswer;
  challenge.output_ = challenge.Prefix(Verdict::kGood) + RandomBytes(kNonceBytes);
  challenge.output_.append(BytesOf(own)).append(BytesOf(wanted));
  challenge.transcript_ = challenge.output_;
  return challenge;
}

Challenge Challenge::Accept(ChallengePurpose purpose, std::string secret, std::string channel,
                            const EndpointId& own, Admit admit) {
  Challenge challenge;
  challenge.purpose_ = purpose;
  challenge.secret_ = std::move(secret);
  challenge.channel_ = std::move(channel);
  challenge.own_id_ = own;
  challenge.admit_ = std::move(admit);
  challenge.step_ = Step::kOpening;
  return challenge;
}

size_t Challenge::wanted_bytes() const {
  switch (step_) {
    case Step::kOpening:
      return kOpeningBytes;
    case Step::kAnswer:
      return kAnswerBytes;
    case Step::kDialerProof:
      return kProofBytes;
    case Step::kAcceptorProof:
      return kAcceptorProofBytes;
    case Step::kDone:
    case Step::kFailed:
      break;
  }
  return 0;
}

bool Challenge::Plausible(std::string_view begun) const {
  return step_ != Step::kOpening ||
         begun.substr(0, kMagic.size()) == kMagic.substr(0, begun.size());
}

Status Challenge::Consume(std::string_view message) {
  CHECK_EQ(message.size(), wanted_bytes());
  const Step step = std::exchange(step_, Step::kFailed);
  switch (step) {
    case Step::kOpening:
      return TakeOpening(message);
    case Step::kAnswer:
      return TakeAnswer(message);
    case Step::kDialerProof:
      return TakeDialerProof(message);
    case Step::kAcceptorProof:
      return TakeAcceptorProof(message);
    case Step::kDone:
    case Step::kFailed:
      break;
  }
  return InternalError("the challenge is over");
}

std::string Challenge::Prefix(Verdict verdict) const {
  std::string prefix(kMagic);
  prefix.push_back(static_cast<char>(kChallengeVersion));
  prefix.push_back(static_cast<char>(purpose_));
  prefix.push_back(static_cast<char>(verdict));
  return prefix;
}

// Of the acceptor's messages: its version, and the verdict it has come to.
Status Challenge::CheckPrefix(std::string_view message) {
  if (!message.starts_with(kMagic)) {
    return FailedPrecondition("what answers there is not an Engram Mesh process");
  }
  const auto version = static_cast<uint8_t>(message[kMagic.size()]);
  switch (static_cast<Verdict>(message[kPrefixBytes - 1])) {
    case Verdict::kGood:
      break;
    case Verdict::kOtherVersion:
      return FailedPrecondition(
          fmt::format("the other side speaks version {} of the challenge, this one {}", version,
                      kChallengeVersion));
    case Verdict::kOtherPurpose:
      return FailedPrecondition("control and data ports are mixed up: check the port numbers");
    case Verdict::kOtherEndpoint:
      return Unavailable("another process answers there than the one addressed: it has restarted");
    case Verdict::kWrongSecret:
      return FailedPrecondition(
          "the other side has another cluster secret: give both the same secret file");
    case Verdict::kNotExpected:
      return FailedPrecondition(
          "the other side does not expect this client: its control connection has ended");
    case Verdict::kSecretRequired:
      return FailedPrecondition(
          "the other side requires a secret, and this one has none: set security.secret_file to "
          "the cluster's");
    case Verdict::kNoSecretHere:
      return FailedPrecondition(
          "the other side has no secret, and this one has: set security.secret_file there to the "
          "same file, or leave it out here");
    default:
      return FailedPrecondition("refused, for a reason this version does not know");
  }
  if (message.substr(0, kPrefixBytes) == Prefix(Verdict::kGood)) return OkStatus();
  return FailedPrecondition("the other side speaks another version, or has another purpose");
}

// Leaves a verdict for the peer, in a message of the size it waits for.
Status Challenge::Refuse(Verdict verdict, size_t message_bytes, Status why) {
  output_ = Prefix(verdict);
  output_.resize(message_bytes, '\0');
  return why;
}

std::string Challenge::ProofOf(std::string_view secret, std::string_view role) const {
  const std::string text = std::string(role) + transcript_ + channel_;
  std::string proof(kProofBytes, '\0');
  unsigned length = 0;
  const unsigned char* done = HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
                                   reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                                   reinterpret_cast<unsigned char*>(proof.data()), &length);
  CHECK(done != nullptr && length == kProofBytes) << "HMAC-SHA256 failed";
  return proof;
}

Status Challenge::TakeOpening(std::string_view message) {
  if (!message.starts_with(kMagic)) {
    return InvalidArgument("a stranger's bytes: not an Engram Mesh process");
  }
  if (static_cast<uint8_t>(message[kMagic.size()]) != kChallengeVersion) {
    return Refuse(Verdict::kOtherVersion, kAnswerBytes,
                  FailedPrecondition("the dialer speaks another version of the challenge"));
  }
  if (message.substr(0, kPrefixBytes) != Prefix(Verdict::kGood)) {
    return Refuse(Verdict::kOtherPurpose, kAnswerBytes,
                  FailedPrecondition("the dialer wants another port of this process"));
  }
  peer_id_ = IdAt(message, kPrefixBytes + kNonceBytes);
  const EndpointId wanted = IdAt(message, kPrefixBytes + kNonceBytes + kIdBytes);
  if (wanted != EndpointId{} && wanted != own_id_) {
    return Refuse(Verdict::kOtherEndpoint, kAnswerBytes,
                  FailedPrecondition("the dialer wants another process, perhaps the one before"));
  }
  output_ = Prefix(Verdict::kGood) + RandomBytes(kNonceBytes);
  output_.append(BytesOf(own_id_));
  transcript_ = std::string(message) + output_;
  step_ = Step::kDialerProof;
  return OkStatus();
}

Status Challenge::TakeAnswer(std::string_view message) {
  RETURN_IF_ERROR(CheckPrefix(message));
  peer_id_ = IdAt(message, kPrefixBytes + kNonceBytes);
  if (wanted_id_ != EndpointId{} && peer_id_ != wanted_id_) {
    return Unavailable("another process answers there than the one addressed");
  }
  transcript_.append(message);
  output_ = Proof("engram dialer");
  step_ = Step::kAcceptorProof;
  return OkStatus();
}

Status Challenge::TakeDialerProof(std::string_view message) {
  const std::string expected = Proof("engram dialer");
  if (CRYPTO_memcmp(expected.data(), message.data(), kProofBytes) != 0) {
    return RefuseSecret(message);
  }
  if (admit_ && !admit_(peer_id_)) {
    return Refuse(Verdict::kNotExpected, kAcceptorProofBytes,
                  FailedPrecondition("the dialer is not expected"));
  }
  output_ = Prefix(Verdict::kGood) + Proof("engram acceptor");
  step_ = Step::kDone;
  return OkStatus();
}

// Tells apart the two mistakes that look like a wrong secret: none there, none here.
Status Challenge::RefuseSecret(std::string_view message) {
  if (secret_.empty()) {
    return Refuse(Verdict::kNoSecretHere, kAcceptorProofBytes,
                  FailedPrecondition("the dialer has a cluster secret, this process has none "
                                     "(security.secret_file)"));
  }
  if (message == ProofOf("", "engram dialer")) {
    return Refuse(Verdict::kSecretRequired, kAcceptorProofBytes,
                  FailedPrecondition("the dialer has no cluster secret (security.secret_file)"));
  }
  return Refuse(Verdict::kWrongSecret, kAcceptorProofBytes,
                FailedPrecondition("the dialer has another cluster secret"));
}

Status Challenge::TakeAcceptorProof(std::string_view message) {
  RETURN_IF_ERROR(CheckPrefix(message));
  const std::string expected = Proof("engram acceptor");
  if (CRYPTO_memcmp(expected.data(), message.data() + kPrefixBytes, kProofBytes) != 0) {
    return FailedPrecondition(
        "the other side does not know the cluster secret: it is not one of this cluster");
  }
  step_ = Step::kDone;
  return OkStatus();
}

}  // namespace engram::net
