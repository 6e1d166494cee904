// The CUDA kernels behind the provider's list: host memory in and out, one call at a time.
#include "kernels/provider.h"

#include <vector>

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/launch.h"

namespace engram::kernels {
namespace {

using cuda::DeviceArray;
using cuda::StatusOf;

Status Launched(const std::string& what) { return StatusOf(cudaGetLastError(), what); }

// `live` with one flag a token.
std::vector<uint8_t> Flags(std::span<const uint8_t> live, size_t tokens) {
  return live.empty() ? std::vector<uint8_t>(tokens, 1)
                      : std::vector<uint8_t>(live.begin(), live.end());
}

// The first array that could not be made or filled.
Status First(std::initializer_list<Status> all) {
  for (const Status& status : all) RETURN_IF_ERROR(status);
  return OkStatus();
}

class CudaProvider : public EngramProvider {
 public:
  explicit CudaProvider(std::string name) : name_(std::move(name)) {}
  std::string name() const override { return name_; }

  Status Hash(const table::TableLayout& layout, const table::LayerLayout& layer,
              const table::NgramState& before, std::span<const int64_t> ids,
              std::span<const uint8_t> live, std::span<uint64_t> rows) override {
    cuda::HashRule rule;
    rule.ngram_size = layout.max_ngram_size;
    rule.heads_per_order = layout.heads_per_order;
    rule.pad = static_cast<uint64_t>(layout.pad_compressed);
    for (size_t i = 0; i < layer.multipliers.size(); ++i) {
      rule.multipliers[i] = static_cast<uint64_t>(layer.multipliers[i]);
    }
    std::vector<int64_t> window;
    std::vector<uint8_t> reachable;
    for (int lookback = layout.max_ngram_size - 1; lookback >= 1; --lookback) {
      const bool known = lookback <= before.length();
      const table::NgramState::Token token =
          known ? before.Back(lookback) : table::NgramState::Token{0, false};
      window.push_back(token.id);
      reachable.push_back(token.live ? 1 : 0);
    }
    window.insert(window.end(), ids.begin(), ids.end());
    const std::vector<uint8_t> flags = Flags(live, ids.size());
    reachable.insert(reachable.end(), flags.begin(), flags.end());
    DeviceArray<uint64_t> primes{std::span<const uint64_t>(layer.primes)};
    DeviceArray<uint64_t> offsets{std::span<const uint64_t>(layer.offsets)};
    DeviceArray<int64_t> device_ids{std::span<const int64_t>(window)};
    DeviceArray<uint8_t> device_live{std::span<const uint8_t>(reachable)};
    DeviceArray<uint64_t> out(rows.size());
    RETURN_IF_ERROR(First({primes.status(), offsets.status(), device_ids.status(),
                           device_live.status(), out.status()}));
    rule.primes = primes.data();
    rule.offsets = offsets.data();
    cuda::HashRows(rule, device_ids.data(), device_live.data(), static_cast<int64_t>(ids.size()),
                   out.data(), nullptr);
    RETURN_IF_ERROR(Launched("hashing"));
    return out.Get(rows);
  }

  Status Decode(const table::RowFormat& format, std::span<const std::byte> rows,
                std::span<float> values) override {
    const auto count = static_cast<int64_t>(rows.size() / format.row_bytes());
    DeviceArray<uint8_t> in{
        std::span<const uint8_t>(reinterpret_cast<const uint8_t*>(rows.data()), rows.size())};
    DeviceArray<float> out(values.size());
    RETURN_IF_ERROR(First({in.status(), out.status()}));
    if (format.encoding == table::RowEncoding::kBf16) {
      cuda::DecodeBf16(in.data(), count, format.head_dim, out.data(), nullptr);
    } else {
      cuda::DecodeFp8(in.data(), count, format.head_dim,
                      format.encoding == table::RowEncoding::kFp8Scaled, out.data(), nullptr);
    }
    RETURN_IF_ERROR(Launched("decoding rows"));
    return out.Get(values);
  }

  Status FusePaper(const PaperFusion& f, std::span<const float> keys, std::span<const float> value,
                   std::span<const uint8_t> live, std::span<float> history,
                   std::span<float> h) override {
    cuda::PaperShape shape;
    shape.streams = f.streams;
    shape.width = static_cast<int64_t>(f.conv_norm.size()) / f.streams;
    shape.tokens = static_cast<int64_t>(h.size() / f.conv_norm.size());
    shape.kernel = f.kernel;
    shape.dilation = f.dilation;
    shape.history_rows = (f.kernel - 1) * f.dilation;
    DeviceArray<float> key_norm(f.key_norm), query_norm(f.query_norm), conv_norm(f.conv_norm),
        conv(f.conv), device_keys(keys), device_value(value), normed(history.size() + h.size()),
        u(h.size());
    DeviceArray<float> device_h{std::span<const float>(h)};
    DeviceArray<uint8_t> flags{
        std::span<const uint8_t>(Flags(live, static_cast<size_t>(shape.tokens)))};
    normed.Put(history);
    RETURN_IF_ERROR(First({key_norm.status(), query_norm.status(), conv_norm.status(),
                           conv.status(), device_keys.status(), device_value.status(),
                           normed.status(), u.status(), device_h.status(), flags.status()}));
    cuda::PaperGate(shape, device_keys.data(), device_value.data(), flags.data(), key_norm.data(),
                    query_norm.data(), conv_norm.data(), device_h.data(), u.data(), normed.data(),
                    nullptr);
    cuda::PaperConvolve(shape, conv.data(), u.data(), normed.data(), device_h.data(), nullptr);
    RETURN_IF_ERROR(Launched("the paper's fusion"));
    RETURN_IF_ERROR(normed.Get(history, h.size()));
    return device_h.Get(h);
  }

  Status FuseV41(std::span<const float> kv, std::span<const float> qk_weight, int64_t streams,
                 float norm_eps, std::span<const uint8_t> live, std::span<float> h) override {
    const auto tokens = static_cast<int64_t>(h.size() / qk_weight.size());
    DeviceArray<float> device_kv(kv), weight(qk_weight);
    DeviceArray<float> device_h{std::span<const float>(h)};
    DeviceArray<uint8_t> flags{std::span<const uint8_t>(Flags(live, static_cast<size_t>(tokens)))};
    RETURN_IF_ERROR(
        First({device_kv.status(), weight.status(), device_h.status(), flags.status()}));
    cuda::FuseV41(tokens, streams, static_cast<int64_t>(qk_weight.size()) / streams, norm_eps,
                  device_kv.data(), weight.data(), flags.data(), device_h.data(), nullptr);
    RETURN_IF_ERROR(Launched("V4.1's fusion"));
    return device_h.Get(h);
  }

 private:
  const std::string name_;
};

}  // namespace

Result<std::unique_ptr<EngramProvider>> OpenCudaProvider() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    return Unavailable(std::string("no CUDA device: ") + (error == cudaSuccess
                                                              ? "the driver lists none"
                                                              : cudaGetErrorString(error)));
  }
  cudaDeviceProp properties;
  RETURN_IF_ERROR(StatusOf(cudaGetDeviceProperties(&properties, 0), "asking for device 0"));
  return std::unique_ptr<EngramProvider>(std::make_unique<CudaProvider>(properties.name));
}

}  // namespace engram::kernels
