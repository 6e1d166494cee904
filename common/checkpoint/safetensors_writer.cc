// Safetensors files and their index, written front to back.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "common/checkpoint/safetensors.h"
#include "common/io/json.h"

namespace engram::io {
namespace {

constexpr size_t kHeaderAlignment = 8;
constexpr size_t kWriteBufferBytes = 1 << 20;

Status WriteError(const std::string& path) {
  return {errno == ENOSPC ? Code::kResourceExhausted : Code::kInvalidArgument,
          fmt::format("cannot write {}: {}", path, std::strerror(errno))};
}

Result<uint64_t> DeclaredBytes(const SafetensorsWriter::Declaration& tensor,
                               const std::string& path) {
  uint64_t bytes = SizeOf(tensor.dtype);
  for (const uint64_t size : tensor.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) {
      return InvalidArgument(
          fmt::format("cannot write {}: tensor \"{}\" is too large", path, tensor.name));
    }
  }
  return bytes;
}

}  // namespace

Result<SafetensorsWriter> SafetensorsWriter::Create(const std::string& path,
                                                    const std::vector<Declaration>& tensors) {
  json::object header;
  uint64_t offset = 0;
  for (const Declaration& tensor : tensors) {
    if (tensor.name == "__metadata__" || header.contains(tensor.name)) {
      return InvalidArgument(fmt::format("cannot write {}: tensor name \"{}\" is {}", path,
                                         tensor.name,
                                         header.contains(tensor.name) ? "repeated" : "reserved"));
    }
    ASSIGN_OR_RETURN(const uint64_t bytes, DeclaredBytes(tensor, path));
    json::array shape;
    for (const uint64_t size : tensor.shape) shape.push_back(size);
    const std::string_view dtype = DTypeName(tensor.dtype);
    header[tensor.name] = json::object{{"dtype", json::string(dtype.data(), dtype.size())},
                                       {"shape", std::move(shape)},
                                       {"data_offsets", json::array{offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = json::serialize(header);
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  SafetensorsWriter writer;
  writer.path_ = path;
  writer.data_bytes_declared_ = offset;
  writer.file_ = std::fopen(path.c_str(), "wbe");
  if (writer.file_ == nullptr) return WriteError(path);
  std::setvbuf(writer.file_, nullptr, _IOFBF, kWriteBufferBytes);
  const uint64_t header_bytes = text.size();
  if (std::fwrite(&header_bytes, sizeof(header_bytes), 1, writer.file_) != 1 ||
      std::fwrite(text.data(), 1, text.size(), writer.file_) != text.size()) {
    return WriteError(path);
  }
  return writer;
}

SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, nullptr)),
      data_bytes_declared_(other.data_bytes_declared_),
      data_bytes_written_(other.data_bytes_written_) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ != nullptr) std::fclose(file_);
}

Status SafetensorsWriter::Append(std::span<const std::byte> bytes) {
  CHECK(file_ != nullptr) << path_ << " is finished";
  if (bytes.size() > data_bytes_declared_ - data_bytes_written_) {
    return FailedPrecondition(fmt::format("cannot write {}: {} + {} bytes, but {} were declared",
                                          path_, data_bytes_written_, bytes.size(),
                                          data_bytes_declared_));
  }
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) return WriteError(path_);
  data_bytes_written_ += bytes.size();
  return OkStatus();
}

Status SafetensorsWriter::Finish() {
  CHECK(file_ != nullptr) << path_ << " is finished";
  if (data_bytes_written_ != data_bytes_declared_) {
    return FailedPrecondition(fmt::format("cannot finish {}: {} bytes written of {} declared",
                                          path_, data_bytes_written_, data_bytes_declared_));
  }
  if (std::fclose(std::exchange(file_, nullptr)) != 0) return WriteError(path_);
  return OkStatus();
}

Status WriteSafetensorsIndex(const std::string& directory,
                             const std::map<std::string, std::string>& weight_map,
                             uint64_t total_size_bytes) {
  json::object map;
  for (const auto& [name, shard] : weight_map) map[name] = shard;
  const json::object document{{"metadata", json::object{{"total_size", total_size_bytes}}},
                              {"weight_map", std::move(map)}};
  const std::string path =
      (std::filesystem::path(directory) / "model.safetensors.index.json").string();
  std::FILE* file = std::fopen(path.c_str(), "wbe");
  if (file == nullptr) return WriteError(path);
  const std::string text = json::serialize(document) + "\n";
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) != 0 || !written) return WriteError(path);
  return OkStatus();
}

}  // namespace engram::io
