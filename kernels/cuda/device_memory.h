// Device memory with an owner, and CUDA's errors as Status.
#pragma once

#include <cuda_runtime_api.h>

#include <span>
#include <string>
#include <utility>

#include "common/base/status.h"

namespace engram::kernels::cuda {

inline Status StatusOf(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return OkStatus();
  const std::string message = "CUDA, " + what + ": " + cudaGetErrorString(error);
  return error == cudaErrorMemoryAllocation ? ResourceExhausted(message) : InternalError(message);
}

// An array on the device. Keeps the first error of its calls, so that a caller asks once.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    status_ =
        StatusOf(cudaMalloc(reinterpret_cast<void**>(&data_), (count == 0 ? 1 : count) * sizeof(T)),
                 "allocating");
  }
  explicit DeviceArray(std::span<const T> values) : DeviceArray(values.size()) { Put(values); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void Put(std::span<const T> values) {
    if (!status_.ok() || values.empty()) return;
    status_ =
        StatusOf(cudaMemcpy(data_, values.data(), values.size_bytes(), cudaMemcpyHostToDevice),
                 "copying in");
  }
  // Waits for what is under way on the default stream.
  Status Get(std::span<T> values, size_t first = 0) const {
    RETURN_IF_ERROR(status_);
    return StatusOf(
        cudaMemcpy(values.data(), data_ + first, values.size_bytes(), cudaMemcpyDeviceToHost),
        "copying out");
  }
  T* data() { return data_; }
  size_t count() const { return count_; }
  const Status& status() const { return status_; }

 private:
  T* data_ = nullptr;
  size_t count_;
  Status status_;
};

}  // namespace engram::kernels::cuda
