// The challenge by its messages: which peer passes, what each is told, and that no changed bit,
// replayed message, reflected message or other channel passes.
#include "common/net/tcp/challenge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

namespace engram::net {
namespace {

using testing::HasSubstr;
using Purpose = ChallengePurpose;

constexpr char kSecret[] = "the secret of one cluster";
constexpr EndpointId kAny{};

struct Side {
  std::string secret = kSecret;
  std::string channel;
  EndpointId id = RandomEndpointId();
  Purpose purpose = Purpose::kData;
};

Challenge Dial(const Side& side, const EndpointId& wanted) {
  return Challenge::Dial(side.purpose, side.secret, side.channel, side.id, wanted);
}
Challenge Accept(const Side& side, Challenge::Admit admit = {}) {
  return Challenge::Accept(side.purpose, side.secret, side.channel, side.id, std::move(admit));
}

struct Outcome {
  std::optional<Status> dialer, acceptor;  // null: never told, it waits on
  bool dialer_done = false, acceptor_done = false;
  std::vector<size_t> sizes;
};

// Passes messages to and fro; `change(index, message)` meddles with the one of that index.
template <typename Change>
Outcome Meet(Challenge dialer, Challenge acceptor, Change change) {
  Outcome outcome;
  Challenge* sides[2] = {&dialer, &acceptor};
  std::optional<Status>* told[2] = {&outcome.dialer, &outcome.acceptor};
  for (int from = 0, index = 0;; from = 1 - from, ++index) {
    std::string message = sides[from]->TakeOutput();
    const int to = 1 - from;
    if (message.empty() || message.size() != sides[to]->wanted_bytes()) break;
    outcome.sizes.push_back(message.size());
    change(index, message);
    *told[to] = sides[to]->Consume(message);
  }
  outcome.dialer_done = dialer.done();
  outcome.acceptor_done = acceptor.done();
  return outcome;
}

Outcome Meet(Challenge dialer, Challenge acceptor) {
  return Meet(std::move(dialer), std::move(acceptor), [](int, std::string&) {});
}

void ExpectSays(const std::optional<Status>& status, const std::string& text) {
  ASSERT_TRUE(status.has_value());
  EXPECT_FALSE(status->ok());
  EXPECT_THAT(status->message(), HasSubstr(text));
}

TEST(Challenge, BothPassWithTheSameSecretAndWithNone) {
  for (const std::string secret : {kSecret, ""}) {
    for (const Purpose purpose : {Purpose::kData, Purpose::kControl}) {
      const Side dialer{secret, "channel", RandomEndpointId(), purpose};
      const Side acceptor{secret, "channel", RandomEndpointId(), purpose};
      for (const EndpointId& wanted : {acceptor.id, kAny}) {
        Challenge a = Dial(dialer, wanted);
        Challenge b = Accept(acceptor);
        const Outcome outcome = Meet(a, b);
        EXPECT_TRUE(outcome.dialer_done && outcome.acceptor_done);
        EXPECT_EQ(outcome.sizes.size(), 4u);
      }
    }
  }
}

TEST(Challenge, EachLearnsTheOthersId) {
  const Side dialer_side, acceptor_side;
  EndpointId admitted{};
  Challenge dialer = Dial(dialer_side, kAny);
  Challenge acceptor = Accept(acceptor_side, [&](const EndpointId& id) {
    admitted = id;
    return true;
  });
  ASSERT_TRUE(acceptor.Consume(dialer.TakeOutput()).ok());
  ASSERT_TRUE(dialer.Consume(acceptor.TakeOutput()).ok());
  EXPECT_EQ(admitted, EndpointId{}) << "asked before the secret was proven";
  ASSERT_TRUE(acceptor.Consume(dialer.TakeOutput()).ok());
  ASSERT_TRUE(dialer.Consume(acceptor.TakeOutput()).ok());
  EXPECT_EQ(admitted, dialer_side.id);
  EXPECT_EQ(acceptor.peer_id(), dialer_side.id);
  EXPECT_EQ(dialer.peer_id(), acceptor_side.id);
  EXPECT_EQ(dialer.wanted_bytes() + acceptor.wanted_bytes(), 0u);
}

TEST(Challenge, EverySingleChangedBitIsRefused) {
  for (const std::string secret : {kSecret, ""}) {
    const Side dialer{secret, "c", RandomEndpointId(), Purpose::kControl};
    const Side acceptor{secret, "c", RandomEndpointId(), Purpose::kControl};
    const std::vector<size_t> sizes = Meet(Dial(dialer, kAny), Accept(acceptor)).sizes;
    ASSERT_EQ(sizes.size(), 4u);
    for (int message = 0; message < 4; ++message) {
      for (size_t bit = 0; bit < 8 * sizes[static_cast<size_t>(message)]; ++bit) {
        const Outcome outcome =
            Meet(Dial(dialer, kAny), Accept(acceptor), [&](int index, std::string& text) {
              if (index == message) text[bit / 8] = static_cast<char>(text[bit / 8] ^ 1 << bit % 8);
            });
        ASSERT_FALSE(outcome.dialer_done) << "message " << message << " bit " << bit;
        // Only the last message comes after the acceptor has made up its mind.
        ASSERT_EQ(outcome.acceptor_done, message == 3) << "message " << message << " bit " << bit;
      }
    }
  }
}

TEST(Challenge, AnotherSecretIsToldToBothSides) {
  const Side ours;
  const Side others{"the secret of another cluster", "", RandomEndpointId(), Purpose::kData};
  for (const auto& [one, other] : {std::pair{&ours, &others}, {&others, &ours}}) {
    const Outcome outcome = Meet(Dial(*one, kAny), Accept(*other));
    ExpectSays(outcome.acceptor, "the dialer has another cluster secret");
    ExpectSays(outcome.dialer, "give both the same secret file");
    EXPECT_EQ(outcome.dialer->code(), Code::kFailedPrecondition);
  }
}

// A side that has no secret at all is told so, and not of another secret.
TEST(Challenge, ASecretThatOneSideLacksIsNamedAsThat) {
  const Side without{"", "", RandomEndpointId(), Purpose::kControl};
  const Side with{kSecret, "", RandomEndpointId(), Purpose::kControl};
  const Outcome missing_here = Meet(Dial(without, kAny), Accept(with));
  ExpectSays(missing_here.acceptor, "the dialer has no cluster secret");
  ExpectSays(missing_here.dialer, "requires a secret, and this one has none");
  ExpectSays(missing_here.dialer, "set security.secret_file");
  const Outcome missing_there = Meet(Dial(with, kAny), Accept(without));
  ExpectSays(missing_there.acceptor, "this process has none");
  ExpectSays(missing_there.dialer, "the other side has no secret");
  ExpectSays(missing_there.dialer, "set security.secret_file there");
  for (const Outcome& outcome : {missing_here, missing_there}) {
    EXPECT_EQ(outcome.dialer->code(), Code::kFailedPrecondition);
    EXPECT_FALSE(outcome.dialer_done || outcome.acceptor_done);
  }
}

TEST(Challenge, AProofOfAnotherChannelIsRefused) {
  Side dialer, acceptor;
  dialer.channel = "key of one TLS connection";
  acceptor.channel = "key of another TLS connection";
  EXPECT_FALSE(Meet(Dial(dialer, kAny), Accept(acceptor)).acceptor_done);
  acceptor.channel = "";
  EXPECT_FALSE(Meet(Dial(dialer, kAny), Accept(acceptor)).acceptor_done);
}

TEST(Challenge, MixedUpPortsAreNamed) {
  Side dialer, acceptor;
  acceptor.purpose = Purpose::kControl;
  const Outcome outcome = Meet(Dial(dialer, kAny), Accept(acceptor));
  ExpectSays(outcome.dialer, "control and data ports are mixed up");
  ExpectSays(outcome.acceptor, "another port");
}

TEST(Challenge, AnotherVersionIsNamedToBothSides) {
  const Outcome outcome = Meet(Dial({}, kAny), Accept({}), [](int index, std::string& message) {
    if (index == 0) message[5] = 9;
    if (index == 1) message[5] = 9;  // as an acceptor of version 9 answers
  });
  ExpectSays(outcome.acceptor, "another version");
  ExpectSays(outcome.dialer, "version 9");
}

TEST(Challenge, AnotherProcessAtTheAddressIsNamed) {
  const Side acceptor;
  const Outcome told = Meet(Dial({}, RandomEndpointId()), Accept(acceptor));
  ExpectSays(told.acceptor, "wants another process");
  ExpectSays(told.dialer, "it has restarted");
  EXPECT_EQ(told.dialer->code(), Code::kUnavailable);
  // One that answers as if it were meant is found out as well.
  const Outcome found =
      Meet(Dial({}, RandomEndpointId()), Accept(acceptor), [](int index, std::string& message) {
        if (index == 0) message.replace(message.size() - kAny.size(), kAny.size(), kAny.size(), 0);
      });
  ExpectSays(found.dialer, "another process answers");
}

TEST(Challenge, WhoIsNotExpectedIsTold) {
  const Outcome outcome = Meet(Dial({}, kAny), Accept({}, [](const EndpointId&) { return false; }));
  ExpectSays(outcome.acceptor, "not expected");
  ExpectSays(outcome.dialer, "does not expect this client");
}

TEST(Challenge, StrangersAreNamedByTheirFirstBytes) {
  Challenge acceptor = Accept({});
  EXPECT_TRUE(acceptor.Plausible(""));
  EXPECT_TRUE(acceptor.Plausible("ENG"));
  EXPECT_TRUE(acceptor.Plausible("ENGRM\x01"));
  EXPECT_FALSE(acceptor.Plausible("G"));
  EXPECT_FALSE(acceptor.Plausible("ENGRA"));
  ExpectSays(acceptor.Consume(std::string(acceptor.wanted_bytes(), 'G')), "a stranger's bytes");
  EXPECT_EQ(acceptor.wanted_bytes(), 0u);
  EXPECT_EQ(acceptor.TakeOutput(), "") << "a stranger is told nothing";
  Challenge dialer = Dial({}, kAny);
  ExpectSays(dialer.Consume(std::string(dialer.wanted_bytes(), 'H')), "not an Engram Mesh process");
}

TEST(Challenge, ADialerThatTalksToItselfIsRefused) {
  Challenge dialer = Dial({}, kAny);
  const std::string opening = dialer.TakeOutput();
  // Its own opening as the answer, then its own proof as the acceptor's.
  const Status answered = dialer.Consume(opening.substr(0, dialer.wanted_bytes()));
  if (answered.ok()) {
    const std::string proof = dialer.TakeOutput();
    ExpectSays(dialer.Consume(opening.substr(0, 8) + proof), "does not know the cluster secret");
  }
  EXPECT_FALSE(dialer.done());
}

TEST(Challenge, RecordedMessagesPassNoSecondTime) {
  const Side dialer_side, acceptor_side;
  std::vector<std::string> recorded;
  ASSERT_TRUE(Meet(Dial(dialer_side, kAny), Accept(acceptor_side), [&](int, std::string& message) {
                recorded.push_back(message);
              }).acceptor_done);
  Challenge acceptor = Accept(acceptor_side);
  ASSERT_TRUE(acceptor.Consume(recorded[0]).ok());
  ExpectSays(acceptor.Consume(recorded[2]), "another cluster secret");
  Challenge dialer = Dial(dialer_side, kAny);
  ASSERT_TRUE(dialer.Consume(recorded[1]).ok());
  ExpectSays(dialer.Consume(recorded[3]), "does not know the cluster secret");
}

}  // namespace
}  // namespace engram::net
