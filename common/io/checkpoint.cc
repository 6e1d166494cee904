// A folder of safetensors files as one set of tensors.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/io/json.h"
#include "common/io/safetensors.h"

namespace engram::io {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr size_t kShardsMax = 10'000;

Result<WeightMap> LoadIndex(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return InvalidArgument(fmt::format("cannot read {}", path));
  return ParseSafetensorsIndex(text.view(), path);
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

Status CheckAgainstIndex(const WeightMap& weight_map, const std::string& index_path,
                         const std::map<std::string, TensorInfo, std::less<>>& tensors,
                         const std::vector<MmapFile>& files) {
  for (const auto& [name, shard] : weight_map) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      return InvalidArgument(
          fmt::format("{}: tensor \"{}\" is not in {}", index_path, name, shard));
    }
    const std::filesystem::path holder = files[found->second.file_index].path();
    if (holder.filename() != shard) {
      return InvalidArgument(fmt::format("{}: tensor \"{}\" should be in {} but is in {}",
                                         index_path, name, shard, holder.filename().string()));
    }
  }
  for (const auto& [name, info] : tensors) {
    if (!weight_map.contains(name)) {
      return InvalidArgument(fmt::format("{}: tensor \"{}\" of {} is not in the index", index_path,
                                         name, files[info.file_index].path()));
    }
  }
  return OkStatus();
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
  const bool has_single = fs::exists(fs::path(directory) / kSingleFile, error);
  const bool has_index = fs::exists(index_path, error);
  if (has_single == has_index) {
    const char* what = has_single ? "both, so which is the model is unclear" : "neither";
    return Status(has_single ? Code::kInvalidArgument : Code::kNotFound,
                  fmt::format("checkpoint {} should hold either {} or {}; it holds {}", directory,
                              kSingleFile, kIndexFile, what));
  }
  WeightMap weight_map;
  std::vector<std::string> shards = {kSingleFile};
  if (has_index) {
    ASSIGN_OR_RETURN(weight_map, LoadIndex(index_path));
    ASSIGN_OR_RETURN(shards, ShardNames(weight_map, index_path));
  }
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  for (const std::string& shard : shards) {
    ASSIGN_OR_RETURN(MmapFile file, MmapFile::Open((fs::path(directory) / shard).string()));
    ASSIGN_OR_RETURN(std::vector<TensorInfo> tensors,
                     ParseSafetensorsHeader(file.bytes(), file.path()));
    for (TensorInfo& info : tensors) {
      info.file_index = static_cast<uint32_t>(checkpoint.files_.size());
      const auto [other, inserted] = checkpoint.tensors_.try_emplace(info.name, info);
      if (!inserted) {
        return InvalidArgument(fmt::format("{}: tensor \"{}\" is also in {}", file.path(),
                                           info.name,
                                           checkpoint.files_[other->second.file_index].path()));
      }
    }
    checkpoint.files_.push_back(std::move(file));
  }
  if (has_index) {
    RETURN_IF_ERROR(
        CheckAgainstIndex(weight_map, index_path, checkpoint.tensors_, checkpoint.files_));
  }
  return checkpoint;
}

Result<TensorView> Checkpoint::Get(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return NotFound(fmt::format("checkpoint {} has no tensor \"{}\"", directory_, name));
  }
  const TensorInfo& info = found->second;
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
  if (std::find(allowed.begin(), allowed.end(), view.info->dtype) == allowed.end()) {
    std::vector<std::string_view> names;
    for (const DType dtype : allowed) names.push_back(DTypeName(dtype));
    return InvalidArgument(fmt::format("{}: tensor \"{}\" is {} where {} is needed",
                                       files_[view.info->file_index].path(), name,
                                       DTypeName(view.info->dtype), fmt::join(names, " or ")));
  }
  return view;
}

}  // namespace engram::io
