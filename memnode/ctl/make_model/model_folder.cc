#include "memnode/ctl/make_model/model_folder.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>

#include "memnode/ctl/make_model/shard_writer.h"

namespace engram::ctl {

namespace fs = std::filesystem;

Status PrepareFolder(const std::string& out, bool force) {
  if (out.empty()) return InvalidArgument("no folder to write the model to (--out)");
  std::error_code error;
  fs::create_directories(out, error);
  if (error) return InvalidArgument(fmt::format("cannot create {}: {}", out, error.message()));
  if (fs::is_empty(out, error)) return OkStatus();
  if (!force) {
    return AlreadyExists(
        fmt::format("{} is not empty; pass --force to replace the model in it", out));
  }
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(out, error)) {
    const std::string name = entry.path().filename();
    const bool shard = name.starts_with("model") && name.ends_with(".safetensors");
    if (shard || name == "config.json") stale.push_back(entry.path());
  }
  for (const fs::path& path : stale) fs::remove(path, error);
  if (error) return InvalidArgument(fmt::format("cannot clear {}: {}", out, error.message()));
  return OkStatus();
}

Status WriteBytes(const fs::path& path, std::string_view bytes) {
  std::FILE* file = std::fopen(path.c_str(), "wbe");
  bool written =
      file != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  if (file != nullptr && std::fclose(file) != 0) written = false;
  if (written) return OkStatus();
  return Status(errno == ENOSPC ? Code::kResourceExhausted : Code::kInvalidArgument,
                fmt::format("cannot write {}: {}", path.string(), std::strerror(errno)));
}

Status WriteShards(const std::string& out, std::span<const std::vector<ModelTensor>> shards,
                   uint64_t seed) {
  std::map<std::string, std::string> weight_map;
  uint64_t total_bytes = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    RETURN_IF_ERROR(WriteShard((fs::path(out) / name).string(), shards[i], seed));
    for (const ModelTensor& tensor : shards[i]) {
      weight_map[tensor.declaration.name] = name;
      total_bytes += tensor.size_bytes();
    }
  }
  return io::WriteSafetensorsIndex(out, weight_map, total_bytes);
}

}  // namespace engram::ctl
