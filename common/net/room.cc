#include "common/net/room.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <unordered_map>
#include <utility>

namespace engram::net {
namespace {

constexpr rlim_t kDescriptorsWanted = 16'384;

PeerAddress OfIpv4(uint32_t address) {
  return {(uint64_t{0xffff} << 32) | address, address >> 24 == 127};
}

PeerAddress OfIpv6(const in6_addr& address) {
  if (IN6_IS_ADDR_V4MAPPED(&address)) {
    uint32_t ipv4 = 0;
    std::memcpy(&ipv4, &address.s6_addr[12], sizeof(ipv4));
    return OfIpv4(ntohl(ipv4));
  }
  PeerAddress peer;
  std::memcpy(&peer.network, &address.s6_addr[0], sizeof(peer.network));
  peer.loopback = IN6_IS_ADDR_LOOPBACK(&address);
  return peer;
}

struct Counts {
  explicit Counts(std::span<const Occupant> occupants) {
    for (const Occupant& one : occupants) {
      ++of[one.address.network];
      (one.address.loopback ? loopback : others)++;
    }
  }
  std::unordered_map<uint64_t, size_t> of;
  size_t loopback = 0, others = 0;
};

// Of the occupants that `may` go, the one to go first: clients of this host last while they have
// few places, then by rank, then from the address that has the most, then the longest waiting.
template <typename May>
std::optional<size_t> First(std::span<const Occupant> occupants, Counts& counts,
                            size_t loopback_places, May may) {
  std::optional<size_t> first;
  std::tuple<bool, int, size_t, TimePoint> lowest;
  for (size_t i = 0; i < occupants.size(); ++i) {
    const Occupant& one = occupants[i];
    if (one.rank < 0 || !may(one.address)) continue;
    const bool kept = one.address.loopback && counts.loopback <= loopback_places;
    const std::tuple order(kept, one.rank, occupants.size() - counts.of[one.address.network],
                           one.waits_since);
    if (first && order >= lowest) continue;
    first = i;
    lowest = order;
  }
  return first;
}

}  // namespace

PeerAddress PeerAddressOf(int fd) {
  sockaddr_storage name = {};
  socklen_t length = sizeof(name);
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0) return {};
  if (name.ss_family == AF_INET) {
    return OfIpv4(ntohl(reinterpret_cast<const sockaddr_in*>(&name)->sin_addr.s_addr));
  }
  if (name.ss_family == AF_INET6) {
    return OfIpv6(reinterpret_cast<const sockaddr_in6*>(&name)->sin6_addr);
  }
  return {};
}

Place FindPlace(std::span<const Occupant> occupants, const PeerAddress& newcomer, size_t places) {
  const size_t loopback_places = places / kLoopbackShare;
  Counts counts(occupants);
  std::optional<size_t> leaves;
  if (!newcomer.loopback && counts.of[newcomer.network] >= places - places / kAddressShare) {
    leaves = First(occupants, counts, loopback_places,
                   [&](const PeerAddress& one) { return one == newcomer; });
  } else if (!newcomer.loopback && counts.others >= places - loopback_places) {
    leaves = First(occupants, counts, loopback_places,
                   [](const PeerAddress& one) { return !one.loopback; });
  } else if (occupants.size() < places) {
    return {true, std::nullopt};
  } else {
    leaves = First(occupants, counts, loopback_places, [](const PeerAddress&) { return true; });
  }
  return {leaves.has_value(), leaves};
}

std::optional<size_t> FirstToLeave(std::span<const Occupant> occupants) {
  Counts counts(occupants);
  return First(occupants, counts, 0, [](const PeerAddress&) { return true; });
}

bool IsReadable(int fd) {
  pollfd entry = {fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

size_t DescriptorsMax() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  const rlim_t wanted = std::min(limit.rlim_max, kDescriptorsWanted);
  if (limit.rlim_cur < wanted) {
    const rlim_t before = std::exchange(limit.rlim_cur, wanted);
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  }
  return static_cast<size_t>(std::min(limit.rlim_cur, kDescriptorsWanted));
}

}  // namespace engram::net
