// Every provider this machine has against the reference.
#include "kernels/provider.h"

#include <gtest/gtest.h>

#include "tests/gpu/cases.h"

namespace engram::kernels {
namespace {

void ExpectAllGood(EngramProvider& provider) {
  const std::vector<CaseResult> results = CompareWithCpu(provider);
  EXPECT_GE(results.size(), 20u);
  for (const CaseResult& result : results) {
    EXPECT_TRUE(result.status.ok()) << result.name << ": " << result.status.message();
  }
}

TEST(Provider, CpuAgreesWithTheReference) { ExpectAllGood(*MakeCpuProvider()); }

TEST(Provider, CudaAgreesWithTheReference) {
  const auto provider = OpenCudaProvider();
  if (!provider.ok()) GTEST_SKIP() << provider.status().message();
  ExpectAllGood(**provider);
}

// A provider that is off by one bit somewhere.
class Broken : public EngramProvider {
 public:
  std::string name() const override { return "broken"; }
  Status Hash(const table::TableLayout& layout, const table::LayerLayout& layer,
              const table::NgramState& before, std::span<const int64_t> ids,
              std::span<const uint8_t> live, std::span<uint64_t> rows) override {
    table::HashRows(layout, layer, before, ids, live, rows);
    rows[rows.size() / 2] ^= 1;
    return OkStatus();
  }
  Status Decode(const table::RowFormat& format, std::span<const std::byte> rows,
                std::span<float> values) override {
    RETURN_IF_ERROR(MakeCpuProvider()->Decode(format, rows, values));
    values.back() += 1;
    return OkStatus();
  }
  Status FusePaper(const PaperFusion&, std::span<const float>, std::span<const float>,
                   std::span<const uint8_t>, std::span<float>, std::span<float>) override {
    return OkStatus();  // nothing is added
  }
  Status FuseV41(std::span<const float>, std::span<const float>, int64_t, float,
                 std::span<const uint8_t>, std::span<float> h) override {
    h[0] += 1;
    return OkStatus();
  }
};

TEST(Provider, TheComparisonFindsWhatIsWrong) {
  Broken broken;
  int found = 0;
  for (const CaseResult& result : CompareWithCpu(broken)) found += result.status.ok() ? 0 : 1;
  EXPECT_GE(found, 20);
}

}  // namespace
}  // namespace engram::kernels
