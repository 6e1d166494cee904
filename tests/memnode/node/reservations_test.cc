// One tool at a time, until it has ended or is gone.
#include "memnode/node/reservations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fakes/fake_clock.h"

namespace engram::memnode {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ReservationsTest : public testing::Test {
 protected:
  FakeClock clock_;
  Reservations reservations_{clock_};
};

TEST_F(ReservationsTest, TheSecondIsToldTheFirst) {
  ASSERT_TRUE(reservations_.Take("a", "first", "publish by engramctl 7").ok());
  clock_.Advance(std::chrono::seconds(2));
  const Status second = reservations_.Take("a", "second", "publish by engramctl 8");
  EXPECT_EQ(second.code(), Code::kFailedPrecondition);
  EXPECT_THAT(second.message(),
              AllOf(HasSubstr("publish by engramctl 7 is under way since 2 s"), HasSubstr("14 s")));
  EXPECT_FALSE(reservations_.Check("a", "second").ok());
  EXPECT_FALSE(reservations_.Check("a", "").ok());
  EXPECT_TRUE(reservations_.Check("a", "first").ok());
  EXPECT_TRUE(reservations_.Take("b", "second", "another model").ok());
  ASSERT_EQ(reservations_.List().size(), 2u);
  EXPECT_EQ(reservations_.List().front().model, "a");
  EXPECT_EQ(reservations_.List().front().holder, "publish by engramctl 7");
  reservations_.Release("a", "second");
  EXPECT_FALSE(reservations_.Check("a", "second").ok()) << "not its own";
  reservations_.Release("a", "first");
  EXPECT_TRUE(reservations_.Take("a", "second", "publish by engramctl 8").ok());
}

TEST_F(ReservationsTest, AToolThatIsGoneKeepsNoOtherOut) {
  ASSERT_TRUE(reservations_.Take("a", "first", "x").ok());
  clock_.Advance(Reservations::kKept - std::chrono::seconds(1));
  ASSERT_TRUE(reservations_.Take("a", "first", "x").ok()) << "renewed";
  clock_.Advance(Reservations::kKept - std::chrono::seconds(1));
  EXPECT_FALSE(reservations_.Check("a", "second").ok());
  clock_.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(reservations_.Check("a", "second").ok());
  EXPECT_TRUE(reservations_.List().empty());
  EXPECT_TRUE(reservations_.Take("a", "first", "x").ok()) << "late, and no other came";
  clock_.Advance(Reservations::kKept);
  EXPECT_TRUE(reservations_.Take("a", "second", "y").ok());
  EXPECT_THAT(reservations_.Take("a", "first", "x").message(), HasSubstr("y is under way"));
}

TEST_F(ReservationsTest, OnlySoManyModelsAreReserved) {
  for (size_t i = 0; i < Reservations::kMax; ++i) {
    ASSERT_TRUE(reservations_.Take(std::to_string(i), "t", "h").ok());
  }
  EXPECT_EQ(reservations_.Take("more", "t", "h").code(), Code::kResourceExhausted);
  EXPECT_TRUE(reservations_.Take("0", "t", "h").ok());
  clock_.Advance(Reservations::kKept);
  EXPECT_TRUE(reservations_.Take("more", "u", "h").ok());
}

}  // namespace
}  // namespace engram::memnode
