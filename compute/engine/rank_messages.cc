#include "compute/engine/rank_messages.h"

#include <fmt/format.h>

#include <cstring>

namespace engram::compute {
namespace {

class Writer {
 public:
  template <typename T>
  void Put(T value) {
    PutRaw(static_cast<int64_t>(value));
  }
  template <typename T>
  void PutList(const std::vector<T>& list) {
    Put(list.size());
    for (const T& value : list) Put(value);
  }
  std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  void PutRaw(int64_t value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof(value));
    std::memcpy(bytes_.data() + at, &value, sizeof(value));
  }
  std::vector<std::byte> bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  int64_t Get() {
    int64_t value = 0;
    if (bytes_.size() - at_ < sizeof(value)) {
      good_ = false;
      return 0;
    }
    std::memcpy(&value, bytes_.data() + at_, sizeof(value));
    at_ += sizeof(value);
    return value;
  }
  // A number of things that take at least 8 bytes each.
  size_t GetCount() {
    const auto count = static_cast<uint64_t>(Get());
    if (count > (bytes_.size() - at_) / sizeof(int64_t)) good_ = false;
    return good_ ? count : 0;
  }
  template <typename T>
  std::vector<T> GetList() {
    std::vector<T> list(GetCount());
    for (T& value : list) value = static_cast<T>(Get());
    return list;
  }
  bool good() const { return good_; }
  bool at_end() const { return good_ && at_ == bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  bool good_ = true;
};

Status Garbled(std::string_view what) {
  return InternalError(
      fmt::format("what rank 0 sent is no {}: the ranks run different programs", what));
}

}  // namespace

std::vector<std::byte> EncodeStep(const RankStep& step) {
  Writer writer;
  writer.Put(static_cast<int64_t>(RankCommand::kStep));
  writer.PutList(step.alive);
  writer.Put(step.runs.size());
  for (const RankStep::Run& run : step.runs) {
    writer.Put(run.sequence);
    writer.Put(run.first);
    writer.Put(run.fresh ? 1 : 0);
    writer.PutList(run.pages);
    writer.PutList(run.tokens);
  }
  return writer.Take();
}

std::vector<std::byte> EncodeLogits(int64_t floats) {
  Writer writer;
  writer.Put(static_cast<int64_t>(RankCommand::kLogits));
  writer.Put(floats);
  return writer.Take();
}

std::vector<std::byte> EncodeEnd() {
  Writer writer;
  writer.Put(static_cast<int64_t>(RankCommand::kEnd));
  return writer.Take();
}

Result<RankMessage> DecodeRankMessage(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  RankMessage message;
  message.command = static_cast<RankCommand>(reader.Get());
  if (message.command == RankCommand::kStep) {
    message.step.alive = reader.GetList<uint64_t>();
    message.step.runs.resize(reader.GetCount());
    for (RankStep::Run& run : message.step.runs) {
      run.sequence = static_cast<uint64_t>(reader.Get());
      run.first = reader.Get();
      run.fresh = reader.Get() != 0;
      run.pages = reader.GetList<int32_t>();
      run.tokens = reader.GetList<int32_t>();
    }
  } else if (message.command == RankCommand::kLogits) {
    message.floats = reader.Get();
  } else if (message.command != RankCommand::kEnd) {
    return Garbled("command");
  }
  if (!reader.at_end()) return Garbled("command");
  return message;
}

std::vector<std::byte> EncodeRows(const LayerRows& rows, size_t runs, uint32_t layer_index) {
  Writer writer;
  for (size_t i = 0; i < runs; ++i) writer.Put(rows.Rows(i, layer_index).size());
  std::vector<std::byte> bytes = writer.Take();
  for (size_t i = 0; i < runs; ++i) {
    const auto part = rows.Rows(i, layer_index);
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  return bytes;
}

Result<std::vector<std::span<const std::byte>>> DecodeRows(std::span<const std::byte> bytes,
                                                           size_t runs) {
  Reader reader(bytes);
  std::vector<uint64_t> sizes(runs);
  for (uint64_t& size : sizes) size = static_cast<uint64_t>(reader.Get());
  if (!reader.good()) return Garbled("layer's rows");
  std::span<const std::byte> rest = bytes.subspan(runs * sizeof(int64_t));
  std::vector<std::span<const std::byte>> parts;
  for (const uint64_t size : sizes) {
    if (size > rest.size()) return Garbled("layer's rows");
    parts.push_back(rest.first(size));
    rest = rest.subspan(size);
  }
  if (!rest.empty()) return Garbled("layer's rows");
  return parts;
}

}  // namespace engram::compute
