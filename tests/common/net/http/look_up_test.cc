// Names whose look-up never ends: the resolver of this test program hangs on them until they are
// released.
#include "common/net/http/look_up.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netdb.h>

#include <condition_variable>
#include <mutex>
#include <string_view>
#include <thread>

#include "common/net/http/client.h"
#include "tests/support/eventually.h"

namespace {

constexpr std::string_view kHanging = "hangs.test";

std::mutex hanging_mutex;
std::condition_variable hanging_released;
bool hanging = false;
int hanging_count = 0;

int HangingCount() {
  const std::lock_guard lock(hanging_mutex);
  return hanging_count;
}

}  // namespace

// In place of the C library's, for all of the program.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                           addrinfo** found) {
  using Resolver = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto next = reinterpret_cast<Resolver>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  if (node == nullptr || node != kHanging) return next(node, service, hints, found);
  std::unique_lock lock(hanging_mutex);
  ++hanging_count;
  hanging_released.wait(lock, [] { return !hanging; });
  --hanging_count;
  return EAI_NONAME;
}

namespace engram::net {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing_support::Eventually;

struct LookUpThatHangs : testing::Test {
  LookUpThatHangs() { Set(true); }
  ~LookUpThatHangs() override {
    Set(false);
    EXPECT_TRUE(Eventually([] { return HangingCount() == 0; }));
  }
  static void Set(bool hangs) {
    const std::lock_guard lock(hanging_mutex);
    hanging = hangs;
    hanging_released.notify_all();
  }
  static Status LookUpWithin(Nanos timeout, const std::stop_token& stop = {}) {
    return LookUp({std::string(kHanging), 80}, std::chrono::steady_clock::now() + timeout, stop)
        .status();
  }
};

TEST_F(LookUpThatHangs, EndsByTheDeadline) {
  EXPECT_EQ(LookUpWithin(20ms).code(), Code::kDeadlineExceeded);
  const Status late = HttpGet(std::string(kHanging) + ":80", "/page", 20ms).status();
  EXPECT_EQ(late.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(late.message(),
            "GET http://hangs.test:80/page: looking up the host: not done within 20 ms");
  // Numbers and other names are found meanwhile.
  EXPECT_TRUE(LookUp({"::1", 80}, {}, {}).ok());
  const auto local = LookUp({"localhost", 80}, std::chrono::steady_clock::now() + 20s, {});
  ASSERT_TRUE(local.ok()) << local.status().message();
  EXPECT_TRUE(local->at(0).address().is_loopback());
}

TEST_F(LookUpThatHangs, EndsWhenStopped) {
  std::stop_source stop;
  std::thread stopper([&] {
    EXPECT_TRUE(Eventually([] { return HangingCount() > 0; }));
    stop.request_stop();
  });
  EXPECT_EQ(LookUpWithin(10min, stop.get_token()).code(), Code::kCancelled);
  stopper.join();
}

TEST_F(LookUpThatHangs, LeavesABoundedNumberOfThreadsBehind) {
  Status status;
  int calls = 0;
  while ((status = LookUpWithin(1ms)).code() == Code::kDeadlineExceeded) ++calls;
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_LE(calls, kLookUpsMax);
  EXPECT_THAT(status.message(), HasSubstr("does the resolver answer?"));
  Set(false);
  EXPECT_TRUE(Eventually([] {
    return LookUpWithin(10min).message().find("not found") != std::string::npos;
  })) << LookUpWithin(10min).message();
}

}  // namespace
}  // namespace engram::net
