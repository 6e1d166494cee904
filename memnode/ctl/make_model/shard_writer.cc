#include "memnode/ctl/make_model/shard_writer.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "common/base/machine_limits.h"
#include "common/base/threads.h"
#include "common/checkpoint/safetensors.h"
#include "memnode/ctl/make_model/random_tensor.h"

namespace engram::ctl {
namespace {

constexpr uint64_t kBlockBytes = 8 << 20;        // drawn by one thread at a time
constexpr uint64_t kParallelBytesMin = 1 << 20;  // below it a thread costs more than it saves
constexpr uint64_t kThreadsMax = 16;

uint64_t ThreadCount() { return std::min<uint64_t>(ThreadsPerCpu(1), kThreadsMax); }

// Fills `out` with the tensor's elements from `first` on, cut among threads at multiples of 8.
void FillParallel(const ModelTensor& tensor, uint64_t seed, uint64_t first,
                  std::span<std::byte> out) {
  const uint64_t element_bytes = SizeOf(tensor.declaration.dtype);
  const uint64_t threads = out.size() < kParallelBytesMin ? 1 : ThreadCount();
  const uint64_t count = out.size() / element_bytes;
  const uint64_t share = (count / threads + 7) / 8 * 8;
  std::atomic<uint64_t> next = 0;
  RunOnThreads(threads, "make-model", [&] {
    for (uint64_t begin = share * next++; begin < count; begin = share * next++) {
      FillTensor(
          tensor, seed, first + begin,
          out.subspan(begin * element_bytes, std::min(share, count - begin) * element_bytes));
    }
  });
}

}  // namespace

Status WriteShard(const std::string& path, std::span<const ModelTensor> tensors, uint64_t seed) {
  std::vector<io::SafetensorsWriter::Declaration> declarations;
  uint64_t largest = 0;
  for (const ModelTensor& tensor : tensors) {
    declarations.push_back(tensor.declaration);
    largest = std::max(largest, tensor.size_bytes());
  }
  ASSIGN_OR_RETURN(io::SafetensorsWriter writer, io::SafetensorsWriter::Create(path, declarations));
  std::vector<std::byte> block(std::min(largest, kBlockBytes * ThreadCount()));
  for (const ModelTensor& tensor : tensors) {
    const uint64_t tensor_seed = TensorSeed(seed, tensor.declaration.name);
    const uint64_t element_bytes = SizeOf(tensor.declaration.dtype);
    const uint64_t bytes = tensor.size_bytes();
    for (uint64_t done = 0; done < bytes; done += block.size()) {
      const auto part = std::span(block).first(std::min<uint64_t>(block.size(), bytes - done));
      FillParallel(tensor, tensor_seed, done / element_bytes, part);
      RETURN_IF_ERROR(writer.Append(part));
    }
  }
  return writer.Finish();
}

}  // namespace engram::ctl
