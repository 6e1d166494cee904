#include "common/base/machine_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

namespace engram {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMib = 1 << 20;

// A made-up /proc and /sys.
class FakeMachine : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "machine_limits_" + std::to_string(::getpid());
    Put("/proc/meminfo",
        "MemTotal: 8388608 kB\nMemFree: 1024 kB\nMemAvailable: 4194304 kB\n"
        "HugePages_Total: 8\nHugePages_Free: 3\nHugepagesize: 2048 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Put(const std::string& path, const std::string& text) const {
    const std::filesystem::path full = root_ + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }
  MachineLimits Read() const { return ReadMachineLimits(root_); }

  std::string root_;
};

TEST_F(FakeMachine, WithoutGroupsIsLimitedByItsMemory) {
  const MachineLimits limits = Read();
  EXPECT_EQ(limits.memory_bytes, 4096 * kMib);
  EXPECT_EQ(limits.memory_source, "MemAvailable of /proc/meminfo");
  EXPECT_EQ(limits.huge_pages_bytes, 6 * kMib);
  EXPECT_EQ(limits.tasks_max, MachineLimits::kNone);
  EXPECT_GE(limits.cpus, 1);
}

TEST_F(FakeMachine, TheTightestGroupOfVersion2AboveTheProcessCounts) {
  Put("/proc/self/cgroup", "0::/pod/engine\n");
  Put("/sys/fs/cgroup/pod/engine/memory.max", "max\n");
  Put("/sys/fs/cgroup/pod/engine/cpu.max", "max 100000\n");
  Put("/sys/fs/cgroup/pod/memory.max", "1073741824\n");
  Put("/sys/fs/cgroup/pod/memory.current", "536870912\n");
  Put("/sys/fs/cgroup/pod/memory.stat", "anon 1\nfile 2\ninactive_file 268435456\n");
  Put("/sys/fs/cgroup/pod/cpu.max", "50000 100000\n");
  Put("/sys/fs/cgroup/pod/pids.max", "64\n");
  Put("/sys/fs/cgroup/pod/pids.current", "60\n");
  const MachineLimits limits = Read();
  EXPECT_EQ(limits.memory_bytes, 768 * kMib);
  EXPECT_EQ(limits.memory_source, "memory.max of /sys/fs/cgroup/pod");
  EXPECT_EQ(limits.cpus, 1);
  EXPECT_EQ(limits.tasks_max, 64u);
  EXPECT_EQ(limits.tasks_used, 60u);
  EXPECT_EQ(limits.tasks_source, "pids.max of /sys/fs/cgroup/pod");
}

TEST_F(FakeMachine, GroupsOfVersion1CountToo) {
  Put("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/box\n2:cpu,cpuacct:/box\n8:pids:/box\n");
  Put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "104857600\n");
  Put("/sys/fs/cgroup/memory/box/memory.usage_in_bytes",
      "209715200\n");  // over it: nothing is left
  Put("/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n");
  Put("/sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
  Put("/sys/fs/cgroup/pids/box/pids.max", "max\n");
  const MachineLimits limits = Read();
  EXPECT_EQ(limits.memory_bytes, 0u);
  EXPECT_EQ(limits.memory_source, "memory.limit_in_bytes of /sys/fs/cgroup/memory/box");
  EXPECT_EQ(limits.tasks_max, MachineLimits::kNone);
}

TEST_F(FakeMachine, DamagedFilesLimitNothing) {
  Put("/proc/self/cgroup", "nonsense\n0:\n0::\n0::relative\n");
  Put("/sys/fs/cgroup/memory.max", "a lot\n");
  Put("/sys/fs/cgroup/cpu.max", "0 0\n");
  EXPECT_EQ(Read().memory_bytes, 4096 * kMib);
}

TEST(MachineLimits, WhatDoesNotFitIsRefusedWithTheSum) {
  MachineLimits limits;
  limits.memory_bytes = 100 * kMib;
  limits.memory_source = "memory.max of /sys/fs/cgroup/pod";
  const std::array<MemoryUse, 3> parts = {
      {{"rows", 90 * kMib}, {"nothing", 0}, {"send buffers", 11 * kMib}}};
  const Status refused = CheckFits(parts, limits, "set arena.budget_mib");
  EXPECT_EQ(refused.code(), Code::kResourceExhausted);
  EXPECT_EQ(refused.message(),
            "101 MiB of memory are needed (rows 90 MiB + send buffers 11 MiB), 100 MiB are to be "
            "had by memory.max of /sys/fs/cgroup/pod: set arena.budget_mib");
  EXPECT_TRUE(CheckFits(std::span(parts).first(2), limits, "").ok());
}

TEST(MachineLimits, ThisMachineHasSome) {
  const MachineLimits limits = ReadMachineLimits();
  EXPECT_GT(limits.memory_bytes, kMib);
  EXPECT_GE(limits.cpus, 1);
  EXPECT_EQ(ThreadsPerCpu(3), 3 * static_cast<size_t>(limits.cpus));
}

}  // namespace
}  // namespace engram
