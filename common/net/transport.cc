#include "common/net/transport.h"

namespace engram::net {

// What transports without one-sided reads say.
Result<std::string> Transport::ShareMemory(std::span<const std::byte>) {
  return FailedPrecondition("transport " + name() + " has no one-sided reads");
}
Status Transport::OpenMemory(PeerId, const std::string&) {
  return FailedPrecondition("transport " + name() + " has no one-sided reads");
}
Status Transport::Read(PeerId, std::span<const ReadPiece>, SendBuffer*,
                       // NOLINTNEXTLINE(performance-unnecessary-value-param): others keep it.
                       std::function<void(Status)>) {
  return FailedPrecondition("transport " + name() + " has no one-sided reads");
}

}  // namespace engram::net
