// One node after the other suffers a fault, under load that compares every row: no lookup fails, no
// row is wrong, an engine says what it always says, and all is well in the end.
//
// CHAOS_SEED, CHAOS_FAULTS and CHAOS_SECONDS set the schedule, CHAOS_ONLY keeps the kinds with that
// in their name; the test as it is has a short schedule of all.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <thread>

#include "common/base/check.h"
#include "tests/chaos/faults.h"
#include "tests/chaos/lookups.h"
#include "tests/support/cluster.h"

namespace engram::chaos {
namespace {

using namespace std::chrono_literals;
using testing_support::Finished;

constexpr double kLookupsPerSecond = 200;
constexpr Nanos kAfterwards = 1s;  // what comes so long after a fault counts as its own
constexpr Nanos kBetweenQuestions = 100ms;
// A fault lasts a share of the longest time, drawn evenly.
constexpr double kShareLeast = 0.25, kShareMean = (1 + kShareLeast) / 2;
constexpr double kBesidesS = 1.3;  // what its begin, its end and the second afterwards take

uint64_t Setting(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

struct Planned {
  const Fault* fault;
  size_t node;
  Nanos lasts;
};

std::vector<const Fault*> Kinds() {
  const char* only = std::getenv("CHAOS_ONLY");
  std::vector<const Fault*> kinds;
  for (const Fault& fault : Faults()) {
    const std::string_view name = fault.name;
    if (only == nullptr || name.find(only) != std::string_view::npos) kinds.push_back(&fault);
  }
  return kinds;
}

// All kinds come equally often, in an order and at nodes that the seed says.
std::vector<Planned> Schedule(uint64_t seed, uint64_t count, Nanos lasts_at_most) {
  Rng rng(seed);
  const std::vector<const Fault*> kinds = Kinds();
  CHECK(!kinds.empty()) << "no kind of fault has that name";
  std::vector<Planned> schedule;
  while (schedule.size() < count) {
    std::vector<const Fault*> round = kinds;
    for (size_t i = round.size(); i > 1; --i) std::swap(round[i - 1], round[rng.NextBelow(i)]);
    for (const Fault* fault : round) {
      const double share = kShareLeast + (1 - kShareLeast) * rng.NextDouble();
      const auto lasts = std::chrono::duration_cast<Nanos>(lasts_at_most * share);
      schedule.push_back({fault, rng.NextBelow(Lab::kNodes), lasts});
    }
  }
  schedule.resize(count);
  return schedule;
}

class Chaos : public testing::Test {
 protected:
  void SetUp() override {
    const Status entered = EnterPrivateNamespaces();
    if (!entered.ok()) GTEST_SKIP() << "no network of its own: " << entered.message();
    work_dir_ = testing_support::MakeTempDir("chaos");
    auto network = Network::Make(kLabHosts, work_dir_, seed_);
    if (!network.ok()) GTEST_SKIP() << "no network of its own: " << network.status().message();
    auto lab = Lab::Make(*std::move(network), work_dir_, kLookupsPerSecond);
    ASSERT_TRUE(lab.ok()) << lab.status().message();
    lab_ = *std::move(lab);
  }
  void TearDown() override {
    lab_.reset();
    if (!work_dir_.empty()) std::filesystem::remove_all(work_dir_);
  }

  // Asks the engine again and again while the fault is there, and once more when it is not.
  void Do(const Planned& planned, const std::string& quiet_answer) {
    const auto [fault, node, lasts] = planned;
    const std::string what =
        fmt::format("{}. {} at m{} for {} ms", done_.size() + 1, fault->name, node, lasts / 1ms);
    SCOPED_TRACE(what);
    const TimePoint begin = Clock::Real().Now();
    fault->begin(*lab_, node);
    Nanos slowest_answer{0};
    do {
      const TimePoint asked = Clock::Real().Now();
      EXPECT_EQ(lab_->Ask(), quiet_answer);
      slowest_answer = std::max(slowest_answer, Clock::Real().Now() - asked);
      std::this_thread::sleep_for(kBetweenQuestions);
    } while (Clock::Real().Now() < begin + lasts);
    fault->end(*lab_, node);
    const TimePoint end = Clock::Real().Now();
    EXPECT_TRUE(lab_->AwaitWhole()) << lab_->node(node).Stderr();
    const Nanos whole_after = Clock::Real().Now() - end;
    EXPECT_EQ(lab_->Ask(), quiet_answer);
    std::this_thread::sleep_until(end + kAfterwards);
    ExpectAllRunning();
    done_.push_back({fault->name, what, begin, slowest_answer, whole_after, Clock::Real().Now()});
    std::cout << fmt::format("{}: whole again after {:.1f} s", what,
                             std::chrono::duration<double>(whole_after).count())
              << std::endl;
  }

  void ExpectAllRunning() {
    for (size_t i = 0; i < Lab::kNodes; ++i) {
      ASSERT_TRUE(lab_->node(i).Running()) << "m" << i << ": " << lab_->node(i).Stderr();
    }
    ASSERT_TRUE(lab_->engine().Running()) << lab_->engine().Stderr();
    ASSERT_TRUE(lab_->load().Running()) << lab_->load().Stderr();
  }

  void ExpectNothingNeedsAPerson() {
    std::string nodes;
    for (size_t i = 0; i < Lab::kNodes; ++i) nodes += (i > 0 ? "," : "") + lab_->control(i);
    const Finished status =
        testing_support::RunToEnd({testing_support::Binary("engramctl"), "status", "--nodes", nodes,
                                   "--secret-file", lab_->secret_file()},
                                  work_dir_);
    EXPECT_EQ(status.exit_code, 0) << status.out << status.err;
  }

  void ExpectSoundStores() {
    for (size_t i = 0; i < Lab::kNodes; ++i) {
      lab_->node(i).Signal(SIGTERM);
      EXPECT_EQ(lab_->node(i).WaitExit(20s), 0) << lab_->node(i).Stderr();
      const Finished verify = testing_support::RunToEnd(
          {testing_support::Binary("engramctl"), "verify", "--store", lab_->store(i)}, work_dir_);
      EXPECT_EQ(verify.exit_code, 0) << "m" << i << ": " << verify.out << verify.err;
    }
  }

  const uint64_t seed_ = Setting("CHAOS_SEED", 1);
  std::string work_dir_;
  std::unique_ptr<Lab> lab_;
  std::vector<Done> done_;
};

TEST_F(Chaos, NoLookupFailsAndNoRowIsWrong) {
  const uint64_t count = Setting("CHAOS_FAULTS", 15);
  const double seconds = static_cast<double>(Setting("CHAOS_SECONDS", 26));
  const double lasts = seconds / static_cast<double>(count) - kBesidesS;
  const double lasts_at_most = std::max(0.2, lasts / kShareMean);
  const auto schedule =
      Schedule(seed_, count,
               std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(lasts_at_most)));

  const std::string quiet_answer = lab_->Ask();
  ASSERT_NE(quiet_answer.find("token_logprobs"), std::string::npos) << quiet_answer;
  std::this_thread::sleep_for(kAfterwards);
  for (const Planned& planned : schedule) {
    ASSERT_NO_FATAL_FAILURE(Do(planned, quiet_answer));
  }
  ExpectNothingNeedsAPerson();

  std::string lookups_file;
  const Result<json::object> report = lab_->EndLoad(&lookups_file);
  ASSERT_TRUE(report.ok()) << report.status().message();
  const auto lookups = ReadLookups(lookups_file);
  ASSERT_TRUE(lookups.ok()) << lookups.status().message();
  std::cout << fmt::format("seed {}, {} lookups/s; {} frames lost, {} changed\n\n{}", seed_,
                           kLookupsPerSecond, lab_->network().lost(), lab_->network().flipped(),
                           TableOf(done_, *lookups));
  EXPECT_EQ(BadOf(done_, *lookups), "") << report->at("first_error");
  EXPECT_EQ(report->at("errors").to_number<uint64_t>(), 0u) << json::serialize(*report);
  EXPECT_EQ(report->at("warm_up_errors").to_number<uint64_t>(), 0u);
  EXPECT_EQ(report->at("wrong_rows").to_number<uint64_t>(), 0u) << json::serialize(*report);
  EXPECT_EQ(report->at("verified_rows").to_number<uint64_t>(),
            lookups->size() * report->at("settings").at("rows_per_step").to_number<uint64_t>())
      << "each row was compared";
  ExpectSoundStores();
}

}  // namespace
}  // namespace engram::chaos
