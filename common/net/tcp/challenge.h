// The mutual challenge that opens every data socket and control connection: each side proves that
// it knows the cluster secret, over fresh nonces of both, before anything else is said. Bytes in,
// bytes out; the socket's owner moves them. An empty secret runs the same code.
//
//   dialer:   prefix, nonce, its id, the id it wants to reach (zeros: any)
//   acceptor: prefix, nonce, its id
//   dialer:   HMAC-SHA256(secret, "engram dialer" | both messages above | channel)
//   acceptor: prefix, HMAC-SHA256(secret, "engram acceptor" | both messages above | channel)
//
// A prefix is "ENGRM", the protocol version, the purpose, and a verdict (0 = go on). `channel` is
// the TLS connection's exported key, so that a proof cannot be passed on through another one; empty
// without TLS.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/status.h"

namespace engram::net {

inline constexpr uint8_t kChallengeVersion = 1;

// Names one end: a transport, or one control connection. Random, never reused.
using EndpointId = std::array<uint8_t, 16>;
EndpointId RandomEndpointId();

enum class ChallengePurpose : uint8_t { kData = 1, kControl = 2 };

class Challenge {
 public:
  // Asked by the acceptor about a dialer that has proven the secret.
  using Admit = std::function<bool(const EndpointId&)>;

  static Challenge Dial(ChallengePurpose purpose, std::string secret, std::string channel,
                        const EndpointId& own, const EndpointId& wanted);
  static Challenge Accept(ChallengePurpose purpose, std::string secret, std::string channel,
                          const EndpointId& own, Admit admit);

  // What must be sent now; after an error, the reason for the peer.
  std::string TakeOutput() { return std::exchange(output_, {}); }
  // Size of the next message from the peer; 0 when none is expected.
  size_t wanted_bytes() const;
  // False when no message of ours begins with what has arrived of the next one.
  bool Plausible(std::string_view begun) const;
  // Takes a message of wanted_bytes(). An error ends it: the peer is not one of ours.
  Status Consume(std::string_view message);
  // Both sides have proven themselves; what TakeOutput() still holds must be sent.
  bool done() const { return step_ == Step::kDone; }
  const EndpointId& peer_id() const { return peer_id_; }

 private:
  enum class Step { kOpening, kAnswer, kDialerProof, kAcceptorProof, kDone, kFailed };
  enum class Verdict : uint8_t {
    kGood = 0,
    kOtherVersion = 1,
    kOtherPurpose = 2,
    kOtherEndpoint = 3,
    kWrongSecret = 4,
    kNotExpected = 5,
    kSecretRequired = 6,  // the dialer has none
    kNoSecretHere = 7,    // the dialer has one
  };

  Challenge() = default;
  std::string Prefix(Verdict verdict) const;
  Status CheckPrefix(std::string_view message);
  Status Refuse(Verdict verdict, size_t message_bytes, Status why);
  std::string Proof(std::string_view role) const { return ProofOf(secret_, role); }
  std::string ProofOf(std::string_view secret, std::string_view role) const;
  Status RefuseSecret(std::string_view message);
  Status TakeOpening(std::string_view message);
  Status TakeAnswer(std::string_view message);
  Status TakeDialerProof(std::string_view message);
  Status TakeAcceptorProof(std::string_view message);

  ChallengePurpose purpose_ = ChallengePurpose::kData;
  std::string secret_;
  std::string channel_;
  Admit admit_;  // of an acceptor
  EndpointId own_id_{}, wanted_id_{}, peer_id_{};
  Step step_ = Step::kFailed;
  std::string transcript_;  // the first two messages
  std::string output_;
};

}  // namespace engram::net
