// The Engram operations of a step behind one list, so that each can run where the step does: the
// CPU's are those of ops.h and table/; CUDA's are kernels/cuda. One set of tests over all.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "common/base/status.h"
#include "common/table/layout.h"
#include "common/table/ngram.h"
#include "kernels/ops.h"

namespace engram::kernels {

// Arguments as in table::HashRows, table::DecodeRow, FusePaper and FuseV41; memory is the caller's
// own (host) memory. Not thread-safe. Errors: INTERNAL names the operation and what the device
// said.
class EngramProvider {
 public:
  virtual ~EngramProvider() = default;
  virtual std::string name() const = 0;  // "cpu", or the device's
  // Exact.
  virtual Status Hash(const table::TableLayout& layout, const table::LayerLayout& layer,
                      const table::NgramState& before, std::span<const int64_t> ids,
                      std::span<const uint8_t> live, std::span<uint64_t> rows) = 0;
  // Exact. rows [count, row_bytes] -> values [count, head_dim].
  virtual Status Decode(const table::RowFormat& format, std::span<const std::byte> rows,
                        std::span<float> values) = 0;
  // |difference to ops.h| <= 4000 eps: sums are taken in another order.
  virtual Status FusePaper(const PaperFusion& fusion, std::span<const float> keys,
                           std::span<const float> value, std::span<const uint8_t> live,
                           std::span<float> history, std::span<float> h) = 0;
  virtual Status FuseV41(std::span<const float> kv, std::span<const float> qk_weight,
                         int64_t streams, float norm_eps, std::span<const uint8_t> live,
                         std::span<float> h) = 0;
};

std::unique_ptr<EngramProvider> MakeCpuProvider();
// UNAVAILABLE says why: not built with CUDA, no driver, no device.
Result<std::unique_ptr<EngramProvider>> OpenCudaProvider();

}  // namespace engram::kernels
