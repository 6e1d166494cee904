// A folder of safetensors files as one set of tensors.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "common/checkpoint/safetensors.h"
#include "common/io/json.h"
#include "common/io/read_file.h"

namespace engram::io {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr size_t kShardsMax = 10'000;
constexpr uint64_t kIndexBytesMax = uint64_t{1} << 28;

Result<WeightMap> LoadIndex(const std::string& path) {
  const Result<std::string> text = ReadFile(path, kIndexBytesMax);
  if (!text.ok()) return InvalidArgument(text.status().message());  // it has an entry
  return ParseSafetensorsIndex(*text, path);
}

// Shard names in order, each once.
Result<std::vector<std::string>> ShardNames(const WeightMap& weight_map, const std::string& path) {
  std::vector<std::string> names;
  for (const auto& [tensor, shard] : weight_map) names.push_back(shard);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  if (names.size() > kShardsMax) {
    return InvalidArgument(
        fmt::format("{}: {} shards, at most {} are opened", path, names.size(), kShardsMax));
  }
  return names;
}

// Without an index: the safetensors files of the folder, in order.
Result<std::vector<std::string>> ShardsWithoutIndex(const std::string& directory) {
  namespace fs = std::filesystem;
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".safetensors") names.push_back(entry->path().filename());
    if (names.size() > kShardsMax) {
      return InvalidArgument(fmt::format("{}: more than {} shards", directory, kShardsMax));
    }
  }
  if (error) return NotFound(fmt::format("cannot list {}: {}", directory, error.message()));
  std::sort(names.begin(), names.end());
  return names;
}

// What the index says and the shards do not bear out becomes a fault of those tensors.
void CompareWithIndex(const WeightMap& weight_map, const std::string& index_path,
                      const std::map<std::string, Status>& shard_faults,
                      const std::vector<MmapFile>& files,
                      std::map<std::string, TensorInfo, std::less<>>* tensors) {
  const auto refuse = [](TensorInfo& info, Status why) {
    if (info.usable.ok()) info.usable = std::move(why);
  };
  for (const auto& [name, shard] : weight_map) {
    const auto [found, absent] = tensors->try_emplace(name);
    TensorInfo& info = found->second;
    if (absent) {
      info.name = name;
      const auto fault = shard_faults.find(shard);
      refuse(info, fault != shard_faults.end()
                       ? fault->second.WithContext(fmt::format("tensor \"{}\"", name))
                       : InvalidArgument(fmt::format("{}: tensor \"{}\" is not in {}", index_path,
                                                     name, shard)));
      continue;
    }
    const std::filesystem::path holder = files[info.file_index].path();
    if (holder.filename() == shard) continue;
    refuse(info, InvalidArgument(fmt::format("{}: tensor \"{}\" should be in {} but is in {}",
                                             index_path, name, shard, holder.filename().string())));
  }
  for (auto& [name, info] : *tensors) {
    if (weight_map.contains(name)) continue;
    refuse(info, InvalidArgument(fmt::format("{}: tensor \"{}\" of {} is not in the index",
                                             index_path, name, files[info.file_index].path())));
  }
}

// A scalar may be written as [] or as [1].
bool SameShape(std::span<const uint64_t> a, std::span<const uint64_t> b) {
  const auto is_scalar = [](std::span<const uint64_t> shape) {
    return shape.empty() || (shape.size() == 1 && shape[0] == 1);
  };
  return (is_scalar(a) && is_scalar(b)) || std::equal(a.begin(), a.end(), b.begin(), b.end());
}

}  // namespace

Result<WeightMap> ParseSafetensorsIndex(std::string_view text, const std::string& path) {
  ASSIGN_OR_RETURN(const json::value document, ParseJson(text, path));
  const json::value* map =
      document.is_object() ? document.get_object().if_contains("weight_map") : nullptr;
  if (map == nullptr || !map->is_object()) {
    return InvalidArgument(path + ": no object \"weight_map\"");
  }
  WeightMap weight_map;
  for (const auto& [name, shard] : map->get_object()) {
    const std::string file = shard.is_string() ? std::string(shard.get_string()) : std::string();
    if (file.empty() || file.find('/') != std::string::npos ||
        file.find('\0') != std::string::npos || file == "." || file == "..") {
      return InvalidArgument(
          fmt::format("{}: tensor \"{}\": {} is not the name of a file beside "
                      "the index",
                      path, std::string(name), json::serialize(shard)));
    }
    weight_map.emplace(std::string(name), file);
  }
  if (weight_map.empty()) return InvalidArgument(path + ": \"weight_map\" is empty");
  return weight_map;
}

Result<Checkpoint> Checkpoint::Open(const std::string& directory) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    return NotFound(fmt::format("cannot open checkpoint {}: no such folder", directory));
  }
  const std::string index_path = (fs::path(directory) / kIndexFile).string();
  const bool has_single = HasEntry((fs::path(directory) / kSingleFile).string());
  const bool has_index = HasEntry(index_path);
  if (has_single && has_index) {
    return InvalidArgument(
        fmt::format("checkpoint {} should hold either {} or {}; it holds both, so which is the "
                    "model is unclear",
                    directory, kSingleFile, kIndexFile));
  }
  WeightMap weight_map;
  std::vector<std::string> shards = {kSingleFile};
  if (has_index) {
    ASSIGN_OR_RETURN(weight_map, LoadIndex(index_path));
    ASSIGN_OR_RETURN(shards, ShardNames(weight_map, index_path));
  } else if (!has_single) {
    ASSIGN_OR_RETURN(shards, ShardsWithoutIndex(directory));
    if (shards.empty()) {
      return NotFound(
          fmt::format("checkpoint {} should hold {}, or shards and their {}; it holds "
                      "no safetensors file",
                      directory, kSingleFile, kIndexFile));
    }
  }
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  std::map<std::string, Status> faults;  // of shards that are absent or damaged
  for (const std::string& shard : shards) {
    const Status opened = checkpoint.AddShard((fs::path(directory) / shard).string());
    if (!opened.ok()) faults.emplace(shard, opened);
  }
  // Without an index nothing says which tensors a file holds that cannot be read.
  if (!has_index && !faults.empty()) return faults.begin()->second;
  if (has_index) {
    CompareWithIndex(weight_map, index_path, faults, checkpoint.files_, &checkpoint.tensors_);
  }
  return checkpoint;
}

Status Checkpoint::AddShard(const std::string& path) {
  ASSIGN_OR_RETURN(MmapFile file, MmapFile::Open(path));
  Result<std::vector<TensorInfo>> parsed = ParseSafetensorsHeader(file.bytes(), path);
  RETURN_IF_ERROR(file.CheckUnchanged());
  ASSIGN_OR_RETURN(std::vector<TensorInfo> tensors, std::move(parsed));
  for (TensorInfo& info : tensors) {
    info.file_index = static_cast<uint32_t>(files_.size());
    const auto [other, inserted] = tensors_.try_emplace(info.name, info);
    if (inserted || !other->second.usable.ok()) continue;
    other->second.usable =
        InvalidArgument(fmt::format("{}: tensor \"{}\" is also in {}", path, info.name,
                                    files_[other->second.file_index].path()));
  }
  files_.push_back(std::move(file));
  return OkStatus();
}

Status Checkpoint::CheckUnchanged() const {
  for (const MmapFile& file : files_) RETURN_IF_ERROR(file.CheckUnchanged());
  return OkStatus();
}

Result<TensorView> Checkpoint::Get(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return NotFound(fmt::format("checkpoint {} has no tensor \"{}\"", directory_, name));
  }
  const TensorInfo& info = found->second;
  RETURN_IF_ERROR(info.usable);
  ASSIGN_OR_RETURN(const auto bytes,
                   files_[info.file_index].Slice(info.file_offset, info.size_bytes));
  return TensorView{&info, bytes};
}

Result<TensorView> Checkpoint::Get(std::string_view name, std::span<const uint64_t> shape,
                                   std::span<const DType> allowed) const {
  ASSIGN_OR_RETURN(const TensorView view, Get(name));
  if (!SameShape(view.info->shape, shape)) {
    return InvalidArgument(
        fmt::format("{}: tensor \"{}\" has shape [{}] where the configuration needs [{}]",
                    files_[view.info->file_index].path(), name, fmt::join(view.info->shape, ","),
                    fmt::join(shape, ",")));
  }
  const std::optional<DType> dtype = view.info->dtype;
  if (!dtype || std::find(allowed.begin(), allowed.end(), *dtype) == allowed.end()) {
    std::vector<std::string_view> names;
    for (const DType one : allowed) names.push_back(DTypeName(one));
    return InvalidArgument(fmt::format("{}: tensor \"{}\" is {} where {} is needed",
                                       files_[view.info->file_index].path(), name,
                                       view.info->dtype_name, fmt::join(names, " or ")));
  }
  return view;
}

}  // namespace engram::io
