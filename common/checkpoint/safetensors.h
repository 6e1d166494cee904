// Safetensors checkpoints, read and written: an 8-byte little-endian header length, a JSON header,
// raw tensor bytes. A folder holds one model.safetensors, or shards listed in
// model.safetensors.index.json, or shards without an index.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/base/types.h"
#include "common/io/mmap_file.h"

namespace engram::io {

struct TensorInfo {
  std::string name;
  std::string dtype_name;      // as the header spells it
  std::optional<DType> dtype;  // none: a type of the format that no part of the model computes with
  std::vector<uint64_t> shape;
  uint32_t file_index = 0;   // into Checkpoint's files
  uint64_t file_offset = 0;  // absolute, bytes
  uint64_t size_bytes = 0;
  // Why the tensor cannot be used: its description, its shard or the index is wrong. The fields
  // above hold what is known then.
  Status usable;
  uint64_t element_count() const;
};

// Bytes of one tensor inside the mapping; valid while the Checkpoint lives.
struct TensorView {
  const TensorInfo* info = nullptr;
  std::span<const std::byte> bytes;
};

// All tensors of a folder, mapped. A tensor that is not used never decides whether the folder
// opens: what is wrong with one (its dtype, shape or place; a shard that is absent or damaged; an
// index that contradicts the shard) is kept in its TensorInfo, and Get refuses that tensor by name.
// Immutable after Open; any thread may read.
class Checkpoint {
 public:
  // NOT_FOUND: no such folder, or none with tensors. INVALID_ARGUMENT: names the file and what is
  // wrong with it (the only shard, or the index).
  static Result<Checkpoint> Open(const std::string& directory);

  const std::string& directory() const { return directory_; }
  const std::map<std::string, TensorInfo, std::less<>>& tensors() const { return tensors_; }
  bool Has(std::string_view name) const { return tensors_.contains(name); }
  // The bytes of one of tensors() that is usable.
  std::span<const std::byte> Bytes(const TensorInfo& info) const {
    return files_[info.file_index].bytes().subspan(info.file_offset, info.size_bytes);
  }
  // The file one of tensors() that is usable lies in.
  const std::string& PathOf(const TensorInfo& info) const { return files_[info.file_index].path(); }
  // DATA_LOSS names the first file that changed since Open (MmapFile::CheckUnchanged): bytes read
  // meanwhile may not be the tensors'. About a microsecond a file.
  Status CheckUnchanged() const;
  // The same of the file one of tensors() that is usable lies in.
  Status CheckUnchanged(const TensorInfo& info) const {
    return files_[info.file_index].CheckUnchanged();
  }
  // NOT_FOUND names the tensor and the folder; or what makes it unusable.
  Result<TensorView> Get(std::string_view name) const;
  // Also refuses another shape or a dtype outside `allowed`, naming both.
  Result<TensorView> Get(std::string_view name, std::span<const uint64_t> shape,
                         std::span<const DType> allowed) const;

 private:
  Status AddShard(const std::string& path);

  std::string directory_;
  std::vector<MmapFile> files_;
  std::map<std::string, TensorInfo, std::less<>> tensors_;
};

// Parses the header of one file: `file` is the whole file's bytes, `path` is for messages. An error
// when the file as a whole is wrong (its length, its JSON, a name twice, bytes of no tensor); what
// is wrong with one tensor is in its `usable`. The usable ones lie inside the file and none over
// another tensor. Exposed for fuzzing.
Result<std::vector<TensorInfo>> ParseSafetensorsHeader(std::span<const std::byte> file,
                                                       const std::string& path);

// Parses an index: tensor -> shard file name. Names of files beside the index only. Exposed for
// fuzzing.
using WeightMap = std::map<std::string, std::string, std::less<>>;
Result<WeightMap> ParseSafetensorsIndex(std::string_view text, const std::string& path);

// Writes one safetensors file front to back with bounded memory: declare every tensor, then append
// their bytes in the order declared, then Finish.
class SafetensorsWriter {
 public:
  struct Declaration {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<uint64_t> shape;
  };
  static Result<SafetensorsWriter> Create(const std::string& path,
                                          const std::vector<Declaration>& tensors);
  SafetensorsWriter(SafetensorsWriter&& other) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) = delete;
  ~SafetensorsWriter();
  Status Append(std::span<const std::byte> bytes);
  // FAILED_PRECONDITION when the bytes appended are not exactly those declared.
  Status Finish();

 private:
  SafetensorsWriter() = default;
  std::string path_;
  std::FILE* file_ = nullptr;
  uint64_t data_bytes_declared_ = 0;
  uint64_t data_bytes_written_ = 0;
};

// Writes model.safetensors.index.json: tensor name -> shard file name.
Status WriteSafetensorsIndex(const std::string& directory,
                             const std::map<std::string, std::string>& weight_map,
                             uint64_t total_size_bytes);

}  // namespace engram::io
