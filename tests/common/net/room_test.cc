// Which connection gives way to which, when strangers hold all the places.
#include "common/net/room.h"

#include <gtest/gtest.h>

#include <vector>

namespace engram::net {
namespace {

constexpr size_t kPlaces = 32;

PeerAddress Remote(uint64_t network) { return {network, false}; }
constexpr PeerAddress kLocal = {1, true};

struct House {
  void Add(const PeerAddress& address, int rank = 0) {
    occupants.push_back({address, rank, TimePoint(Nanos(++time))});
  }
  // The newcomer's, after the occupant that had to has left.
  bool Enter(const PeerAddress& address, int rank = 0) {
    const Place place = FindPlace(occupants, address, kPlaces);
    if (place.leaves) {
      left.push_back(occupants[*place.leaves]);
      occupants.erase(occupants.begin() + static_cast<ptrdiff_t>(*place.leaves));
    }
    if (place.given) Add(address, rank);
    return place.given;
  }
  size_t Count(const PeerAddress& address) const {
    size_t count = 0;
    for (const Occupant& one : occupants) count += one.address == address;
    return count;
  }
  std::vector<Occupant> occupants, left;
  int64_t time = 0;
};

TEST(Room, AFloodFromOneAddressTakesItsOwnPlacesOnly) {
  House house;
  house.Add(kLocal);
  house.Add(Remote(7));
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(house.Enter(Remote(9)));
  EXPECT_EQ(house.Count(Remote(9)), kPlaces - kPlaces / kAddressShare);
  EXPECT_EQ(house.Count(Remote(7)), 1u);
  EXPECT_EQ(house.Count(kLocal), 1u);
  EXPECT_TRUE(house.Enter(Remote(8)));
  for (const Occupant& one : house.left) EXPECT_EQ(one.address, Remote(9));
}

TEST(Room, AnAddressThatWorksOnAllItsPlacesGetsNoMoreAndOthersDo) {
  House house;
  size_t given = 0;
  for (int i = 0; i < 1000; ++i) given += house.Enter(Remote(9), -1);
  EXPECT_EQ(given, kPlaces - kPlaces / kAddressShare);
  EXPECT_TRUE(house.Enter(Remote(8), -1));
}

TEST(Room, ManyAddressesLeaveTheHostsOwnClientsTheirPlaces) {
  House house;
  for (uint64_t i = 0; i < 1000; ++i) house.Enter(Remote(i), -1);
  EXPECT_EQ(house.occupants.size(), kPlaces - kPlaces / kLoopbackShare);
  EXPECT_TRUE(house.Enter(kLocal));
  House waiting;
  waiting.Add(kLocal);
  for (uint64_t i = 0; i < 1000; ++i) waiting.Enter(Remote(i));
  EXPECT_EQ(waiting.Count(kLocal), 1u);
}

TEST(Room, OfOneAddressTheLongestWaitingLeavesSoThatWhoIsArrivingHasTime) {
  House house;
  for (size_t i = 0; i < kPlaces; ++i) house.Add(kLocal);
  for (size_t i = 0; i < kPlaces / 2; ++i) ASSERT_TRUE(house.Enter(kLocal));
  for (size_t i = 0; i < house.left.size(); ++i) {
    EXPECT_EQ(house.left[i].waits_since, TimePoint(Nanos(static_cast<int64_t>(i) + 1)));
  }
}

TEST(Room, LowerRanksLeaveFirstAndWorkersNever) {
  House house;
  house.Add(kLocal, 2);
  house.Add(kLocal, 1);
  house.Add(kLocal, 0);
  while (house.occupants.size() < kPlaces) house.Add(kLocal, -1);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(house.Enter(kLocal, -1));
  EXPECT_FALSE(house.Enter(kLocal));
  ASSERT_EQ(house.left.size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(house.left[static_cast<size_t>(i)].rank, i);
  EXPECT_FALSE(FirstToLeave(house.occupants));
}

}  // namespace
}  // namespace engram::net
