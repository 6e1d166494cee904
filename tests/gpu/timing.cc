#include "tests/gpu/timing.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/launch.h"

namespace engram::kernels {
namespace {

using cuda::DeviceArray;
using cuda::StatusOf;

constexpr int kRounds = 15;
constexpr int kCallsARound = 20;

struct Timed {
  std::string name;
  double bytes;  // read and written by one call
  std::function<void()> call;
  std::vector<double> microseconds = {};
};

Status TimeRound(Timed& timed, cudaEvent_t begin, cudaEvent_t end) {
  RETURN_IF_ERROR(StatusOf(cudaEventRecord(begin), "recording"));
  for (int i = 0; i < kCallsARound; ++i) timed.call();
  RETURN_IF_ERROR(StatusOf(cudaGetLastError(), timed.name));
  RETURN_IF_ERROR(StatusOf(cudaEventRecord(end), "recording"));
  RETURN_IF_ERROR(StatusOf(cudaEventSynchronize(end), timed.name));
  float milliseconds = 0;
  RETURN_IF_ERROR(StatusOf(cudaEventElapsedTime(&milliseconds, begin, end), "timing"));
  timed.microseconds.push_back(1000.0 * static_cast<double>(milliseconds) / kCallsARound);
  return OkStatus();
}

}  // namespace

Result<std::string> TimeCudaKernels() {
  // 4,096 tokens of V4.1's shape: 24 rows of 264 bytes a layer; 4 streams of 2,560.
  constexpr int64_t kTokens = 4096, kRows = kTokens * 24, kStreams = 4, kWidth = 2560;
  constexpr size_t kCopyBytes = size_t{512} << 20;
  constexpr size_t kChannels = kStreams * kWidth;
  DeviceArray<uint8_t> from(kCopyBytes), to(kCopyBytes), live(kTokens + 8), rows(kRows * 512);
  DeviceArray<int64_t> ids(kTokens + 8);
  DeviceArray<uint64_t> primes(24), offsets(24), addresses(kRows);
  DeviceArray<float> values(kRows * 256), h(kTokens * kChannels), keys(kTokens * kChannels),
      u(kTokens * kChannels), normed((kTokens + 9) * kChannels), value(kTokens * kWidth),
      weights(kChannels * 4), kv(kTokens * (kChannels + kWidth));
  for (const Status& status :
       {from.status(), to.status(), live.status(), rows.status(), ids.status(), values.status(),
        h.status(), keys.status(), u.status(), normed.status(), value.status(), weights.status(),
        kv.status(), addresses.status()}) {
    RETURN_IF_ERROR(status);
  }
  cudaMemset(live.data(), 1, live.count());
  primes.Put(std::vector<uint64_t>(24, 16'000'057));
  offsets.Put(std::vector<uint64_t>(24, 7));
  cuda::HashRule rule{4, 8, 2, {3, 5, 7, 9}, primes.data(), offsets.data()};
  const cuda::PaperShape shape{kTokens, kStreams, kWidth, 4, 3, 9};
  constexpr double kFloats = 4.0 * kTokens * kChannels;
  std::vector<Timed> all = {
      {"copy on the device", 2.0 * kCopyBytes,
       [&] { cudaMemcpyAsync(to.data(), from.data(), kCopyBytes, cudaMemcpyDeviceToDevice); }},
      {"hash, 24 addresses a token", kRows * 8.0 + kTokens * 9.0,
       [&] { cuda::HashRows(rule, ids.data(), live.data(), kTokens, addresses.data(), nullptr); }},
      {"decode bf16 rows of 256", kRows * (512.0 + 1024.0),
       [&] { cuda::DecodeBf16(rows.data(), kRows, 256, values.data(), nullptr); }},
      {"decode fp8 rows of 256, scaled", kRows * (264.0 + 1024.0),
       [&] { cuda::DecodeFp8(rows.data(), kRows, 256, true, values.data(), nullptr); }},
      {"paper's gate, value and norm", 4 * kFloats + 4.0 * kTokens * kWidth,
       [&] {
         cuda::PaperGate(shape, keys.data(), value.data(), live.data(), weights.data(),
                         weights.data(), weights.data(), h.data(), u.data(), normed.data(),
                         nullptr);
       }},
      {"paper's convolution and residual", 4 * kFloats,
       [&] {
         cuda::PaperConvolve(shape, weights.data(), u.data(), normed.data(), h.data(), nullptr);
       }},
      {"V4.1's gate and residual", 3 * kFloats + 4.0 * kTokens * kWidth,
       [&] {
         cuda::FuseV41(kTokens, kStreams, kWidth, 1e-20f, kv.data(), weights.data(), live.data(),
                       h.data(), nullptr);
       }},
  };
  cudaEvent_t begin, end;
  RETURN_IF_ERROR(StatusOf(cudaEventCreate(&begin), "making an event"));
  RETURN_IF_ERROR(StatusOf(cudaEventCreate(&end), "making an event"));
  for (int round = -1; round < kRounds; ++round) {
    for (Timed& timed : all) {
      RETURN_IF_ERROR(TimeRound(timed, begin, end));
      if (round < 0) timed.microseconds.clear();
    }
  }
  double copy = 0;
  std::string text = fmt::format("{:36}{:>30}{:>10}{:>10}\n", "operation, 4096 tokens",
                                 "us, median (min..max)", "GB/s", "of copy");
  for (Timed& timed : all) {
    std::sort(timed.microseconds.begin(), timed.microseconds.end());
    const double median = timed.microseconds[kRounds / 2];
    const double rate = timed.bytes * 1e-3 / median;
    if (copy == 0) copy = rate;
    text += fmt::format("{:36}{:>30}{:>10.0f}{:>10.2f}\n", timed.name,
                        fmt::format("{:.1f} ({:.1f}..{:.1f})", median, timed.microseconds.front(),
                                    timed.microseconds.back()),
                        rate, rate / copy);
  }
  return text;
}

}  // namespace engram::kernels
