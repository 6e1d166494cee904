// RESP, as far as SET and MGET of fixed-size binary values need it.
#include <fmt/format.h>

#include "tests/bench/peers/key.h"
#include "tests/bench/peers/protocol.h"

namespace engram::bench {
namespace {

// "*N\r\n", then N times "$264\r\n" value "\r\n"; a missing key is "$-1\r\n".
class MgetParser : public BatchParser {
 public:
  explicit MgetParser(size_t value_bytes)
      : BatchParser(value_bytes), value_header_(fmt::format("${}\r\n", value_bytes)) {}

  void Begin(const Batch& batch, std::span<std::byte> out) override {
    BatchParser::Begin(batch, out);
    if (array_header_of_ != count_) array_header_ = fmt::format("*{}\r\n", count_);
    array_header_of_ = count_;
    in_array_ = false;
  }

  Result<size_t> Take(std::string_view input) override {
    size_t taken = 0;
    if (!in_array_) {
      if (!array_header_.starts_with(input.substr(0, array_header_.size()))) {
        return Unexpected(input, array_header_);
      }
      if (input.size() < array_header_.size()) return size_t{0};
      taken = array_header_.size();
      in_array_ = true;
    }
    while (taken_ < count_) {
      const auto value = TakeValue(input.substr(taken), value_header_);
      if (!value.ok()) return value.status();
      if (*value == 0) break;
      taken += *value;
    }
    return taken;
  }

 private:
  const std::string value_header_;
  std::string array_header_;
  size_t array_header_of_ = 0;
  bool in_array_ = false;
};

class Redis : public Protocol {
 public:
  void AppendStore(uint64_t layer, uint64_t row, std::span<const std::byte> value,
                   std::string* request) const override {
    request->append("*3\r\n$3\r\nSET\r\n$8\r\n");
    AppendKey(layer, row, request);
    fmt::format_to(std::back_inserter(*request), "${}\r\n", value.size());
    request->append(reinterpret_cast<const char*>(value.data()), value.size());
    request->append("\r\n");
  }
  std::string_view stored_line() const override { return "+OK"; }

  void AppendRead(const Batch& batch, std::string* request) const override {
    fmt::format_to(std::back_inserter(*request), "*{}\r\n$4\r\nMGET\r\n", batch.row_count() + 1);
    for (size_t layer = 0; layer < kLayers; ++layer) {
      for (const uint64_t row : batch.rows[layer]) {
        request->append("$8\r\n", 4);
        AppendKey(layer, row, request);
      }
    }
  }
  std::unique_ptr<BatchParser> MakeParser(size_t value_bytes) const override {
    return std::make_unique<MgetParser>(value_bytes);
  }

 private:
  static void AppendKey(uint64_t layer, uint64_t row, std::string* request) {
    char key[kKeyBytes + 2];
    kKeys.Write(layer, row, key);
    key[kKeyBytes] = '\r';
    key[kKeyBytes + 1] = '\n';
    request->append(key, sizeof(key));
  }
};

}  // namespace

std::unique_ptr<Protocol> RedisProtocol() { return std::make_unique<Redis>(); }

}  // namespace engram::bench
