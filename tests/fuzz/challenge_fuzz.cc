// Fuzzes the challenge that opens every connection (common/net/tcp/challenge.h). Input: a mode
// byte, then bytes of the network. Whatever they are, a side that did not see the secret proven is
// not done.
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/check.h"
#include "common/net/tcp/challenge.h"

namespace {

using namespace engram;
using namespace engram::net;

constexpr EndpointId kDialerId = {1, 2, 3};
constexpr EndpointId kAcceptorId = {4, 5, 6};
constexpr char kSecret[] = "a secret of some length";

Challenge Dialer() {
  return Challenge::Dial(ChallengePurpose::kData, kSecret, "", kDialerId, kAcceptorId);
}
Challenge Acceptor() {
  return Challenge::Accept(ChallengePurpose::kData, kSecret, "", kAcceptorId,
                           [](const EndpointId& id) { return id == kDialerId; });
}

std::string_view Take(std::string_view* bytes, size_t count) {
  const std::string_view taken = bytes->substr(0, count);
  bytes->remove_prefix(taken.size());
  return taken;
}

// A stranger's bytes, as many as are wanted.
void FaceStranger(Challenge side, std::string_view bytes) {
  for (int messages = 0; side.wanted_bytes() > 0 && side.wanted_bytes() <= bytes.size();
       ++messages) {
    CHECK_LT(messages, 3) << "a challenge without end";
    const Status status = side.Consume(Take(&bytes, side.wanted_bytes()));
    CHECK(status.ok() || side.wanted_bytes() == 0) << "goes on after an error";
    side.TakeOutput();
  }
  CHECK(!side.done()) << "a stranger was believed";
}

// Two of ours, each message XORed with bytes of the network: done only if nothing was changed.
void MeetOverBadNetwork(std::string_view noise) {
  Challenge dialer = Dialer();
  Challenge acceptor = Acceptor();
  Challenge* from = &dialer;
  Challenge* to = &acceptor;
  bool changed = false;
  while (to->wanted_bytes() > 0) {
    std::string message = from->TakeOutput();
    if (message.size() < to->wanted_bytes()) break;  // the other side has refused
    CHECK_EQ(message.size(), to->wanted_bytes());
    const std::string_view mask = Take(&noise, message.size());
    for (size_t i = 0; i < mask.size(); ++i) {
      message[i] = static_cast<char>(message[i] ^ mask[i]);
      changed = changed || mask[i] != 0;
    }
    const Status status = to->Consume(message);
    CHECK(changed || status.ok()) << status.ToString();
    CHECK(!changed || !to->done()) << "a changed message was believed";
    if (!status.ok()) break;
    std::swap(from, to);
  }
  CHECK(changed || (dialer.done() && acceptor.done()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      FaceStranger(Acceptor(), bytes);
      break;
    case 1:
      FaceStranger(Dialer(), bytes);
      break;
    default:
      MeetOverBadNetwork(bytes);
  }
  return 0;
}
