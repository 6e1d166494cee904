// memcached's text protocol: multi-get, and pipelined meta gets.
#include <fmt/format.h>

#include <cstring>

#include "tests/bench/peers/key.h"
#include "tests/bench/peers/protocol.h"

namespace engram::bench {
namespace {

// Per key "VALUE key 0 264\r\n" value "\r\n", in the order asked; a missing key is left out. Then
// "END\r\n".
class MultiGetParser : public BatchParser {
 public:
  explicit MultiGetParser(size_t value_bytes)
      : BatchParser(value_bytes), header_(fmt::format("VALUE ........ 0 {}\r\n", value_bytes)) {}

  void Begin(const Batch& batch, std::span<std::byte> out) override {
    BatchParser::Begin(batch, out);
    tail_done_ = false;
  }

  Result<size_t> Take(std::string_view input) override {
    constexpr std::string_view kEnd = "END\r\n";
    size_t taken = 0;
    while (taken_ < count_) {
      const size_t per_layer = batch_.rows[0].size();
      const size_t layer = taken_ / per_layer;
      kKeys.Write(layer, batch_.rows[layer][taken_ % per_layer], header_.data() + kKeyAt);
      const auto value = TakeValue(input.substr(taken), header_);
      if (!value.ok()) return value.status();
      if (*value == 0) return taken;
      taken += *value;
    }
    const std::string_view rest = input.substr(taken, kEnd.size());
    if (!kEnd.starts_with(rest)) return Unexpected(input.substr(taken), kEnd);
    if (rest.size() < kEnd.size()) return taken;
    tail_done_ = true;
    return taken + kEnd.size();
  }

 private:
  static constexpr size_t kKeyAt = 6;  // behind "VALUE "
  std::string header_;
};

// Per key "VA 264\r\n" value "\r\n"; a missing key is "EN\r\n".
class MetaGetParser : public BatchParser {
 public:
  explicit MetaGetParser(size_t value_bytes)
      : BatchParser(value_bytes), header_(fmt::format("VA {}\r\n", value_bytes)) {}

  Result<size_t> Take(std::string_view input) override {
    size_t taken = 0;
    while (taken_ < count_) {
      const auto value = TakeValue(input.substr(taken), header_);
      if (!value.ok()) return value.status();
      if (*value == 0) break;
      taken += *value;
    }
    return taken;
  }

 private:
  const std::string header_;
};

class Memcached : public Protocol {
 public:
  explicit Memcached(bool meta) : meta_(meta) {}

  void AppendStore(uint64_t layer, uint64_t row, std::span<const std::byte> value,
                   std::string* request) const override {
    char key[kKeyBytes];
    kKeys.Write(layer, row, key);
    fmt::format_to(std::back_inserter(*request), "set {} 0 0 {}\r\n",
                   std::string_view(key, sizeof(key)), value.size());
    request->append(reinterpret_cast<const char*>(value.data()), value.size());
    request->append("\r\n");
  }
  std::string_view stored_line() const override { return "STORED"; }

  void AppendRead(const Batch& batch, std::string* request) const override {
    char text[] = "mg ........ v\r\n";
    char* const key = text + 3;
    const std::string_view one = meta_ ? std::string_view(text, sizeof(text) - 1)
                                       : std::string_view(text + 2, kKeyBytes + 1);
    if (!meta_) request->append("get");
    for (size_t layer = 0; layer < kLayers; ++layer) {
      for (const uint64_t row : batch.rows[layer]) {
        kKeys.Write(layer, row, key);
        request->append(one);
      }
    }
    if (!meta_) request->append("\r\n");
  }
  std::unique_ptr<BatchParser> MakeParser(size_t value_bytes) const override {
    if (meta_) return std::make_unique<MetaGetParser>(value_bytes);
    return std::make_unique<MultiGetParser>(value_bytes);
  }

 private:
  const bool meta_;
};

}  // namespace

std::unique_ptr<Protocol> MemcachedTextProtocol() { return std::make_unique<Memcached>(false); }
std::unique_ptr<Protocol> MemcachedMetaProtocol() { return std::make_unique<Memcached>(true); }

}  // namespace engram::bench
