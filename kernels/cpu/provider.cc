// The CPU's Engram operations behind the provider's list.
#include "kernels/provider.h"

#include "common/table/row_codec.h"

namespace engram::kernels {
namespace {

class CpuProvider : public EngramProvider {
 public:
  std::string name() const override { return "cpu"; }
  Status Hash(const table::TableLayout& layout, const table::LayerLayout& layer,
              const table::NgramState& before, std::span<const int64_t> ids,
              std::span<const uint8_t> live, std::span<uint64_t> rows) override {
    table::HashRows(layout, layer, before, ids, live, rows);
    return OkStatus();
  }
  Status Decode(const table::RowFormat& format, std::span<const std::byte> rows,
                std::span<float> values) override {
    const size_t bytes = format.row_bytes();
    const size_t dim = format.head_dim;
    for (size_t i = 0; i < rows.size() / bytes; ++i) {
      table::DecodeRow(format, rows.subspan(i * bytes, bytes), values.subspan(i * dim, dim));
    }
    return OkStatus();
  }
  Status FusePaper(const PaperFusion& fusion, std::span<const float> keys,
                   std::span<const float> value, std::span<const uint8_t> live,
                   std::span<float> history, std::span<float> h) override {
    kernels::FusePaper(memory_, fusion, keys, value, live, history, h);
    return OkStatus();
  }
  Status FuseV41(std::span<const float> kv, std::span<const float> qk_weight, int64_t streams,
                 float norm_eps, std::span<const uint8_t> live, std::span<float> h) override {
    kernels::FuseV41(kv, qk_weight, streams, norm_eps, live, h);
    return OkStatus();
  }

 private:
  Workspace memory_;
};

}  // namespace

std::unique_ptr<EngramProvider> MakeCpuProvider() { return std::make_unique<CpuProvider>(); }

#if !defined(ENGRAM_HAS_CUDA)
Result<std::unique_ptr<EngramProvider>> OpenCudaProvider() {
  return Unavailable("built without CUDA: no nvcc was found when configuring");
}
#endif

}  // namespace engram::kernels
