#include "tests/bench/peers/reply_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "common/base/check.h"

namespace engram::bench {

std::string Excerpt(std::string_view input) {
  constexpr size_t kExcerptBytes = 80;
  std::string text(input.substr(0, std::min(input.find("\r\n"), kExcerptBytes)));
  for (char& c : text) {
    if (c < ' ' || c > '~') c = '.';
  }
  return text;
}

void BatchParser::Begin(const Batch& batch, std::span<std::byte> out) {
  CHECK_EQ(out.size(), batch.row_count() * value_bytes_);
  batch_ = batch;
  out_ = out.data();
  count_ = batch.row_count();
  taken_ = 0;
  tail_done_ = true;
}

Result<size_t> BatchParser::TakeValue(std::string_view input, std::string_view header) {
  const size_t compared = std::min(input.size(), header.size());
  if (std::memcmp(input.data(), header.data(), compared) != 0) return Unexpected(input, header);
  const size_t total = header.size() + value_bytes_ + 2;
  if (input.size() < total) return size_t{0};
  if (input[total - 2] != '\r' || input[total - 1] != '\n') {
    return Unexpected(input.substr(total - 2), "the end of a value");
  }
  std::memcpy(out_ + taken_ * value_bytes_, input.data() + header.size(), value_bytes_);
  ++taken_;
  return total;
}

Status BatchParser::Unexpected(std::string_view input, std::string_view expected) const {
  return DataLoss(fmt::format("value {} of {}: the reply has \"{}\" where \"{}\" was expected",
                              taken_, count_, Excerpt(input), Excerpt(expected)));
}

Result<size_t> LinesParser::Take(std::string_view input) {
  size_t taken = 0;
  while (left_ > 0 && input.size() - taken >= line_.size()) {
    if (input.substr(taken, line_.size()) != line_) {
      return DataLoss(fmt::format("the reply has \"{}\" where \"{}\" was expected",
                                  Excerpt(input.substr(taken)), Excerpt(line_)));
    }
    taken += line_.size();
    --left_;
  }
  return taken;
}

}  // namespace engram::bench
