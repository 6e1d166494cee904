// Fuzzes the JSON of the control connection (common/net/control/messages.h): whatever is accepted
// must come out of our own writer as a frame that is accepted again and means the same.
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/check.h"
#include "common/net/control/messages.h"

namespace {

using namespace engram;
using namespace engram::net;

// The text inside a frame of ours; its prefix must be right.
std::string_view TextOf(const std::string& frame) {
  const std::string_view all = frame;
  const Result<uint32_t> length = FrameLength(all.substr(0, kFramePrefixBytes));
  const size_t text_bytes = all.size() - kFramePrefixBytes;
  CHECK(length.ok() ? *length == text_bytes : text_bytes > kControlFrameBytesMax);
  return all.substr(kFramePrefixBytes);
}

void CheckHello(std::string_view text) {
  const Result<Hello> hello = ParseHello(text);
  if (!hello.ok()) return;
  CHECK_LE(hello->address.size(), kAddressBytesMax);
  const std::string frame = HelloFrame(*hello);
  const Result<Hello> again = ParseHello(TextOf(frame));
  CHECK(again.ok()) << again.status().ToString();
  CHECK(HelloFrame(*again) == frame);
}

void CheckAnswer(std::string_view text) {
  const Result<Welcome> welcome = ParseAnswer(text);
  if (!welcome.ok()) {
    const std::string frame = RefusedFrame(welcome.status());
    const Status again = ParseAnswer(TextOf(frame)).status();
    CHECK(!again.ok());
    return;
  }
  CHECK_LE(welcome->known_answers.size(), kKnownAnswersMax);
  CHECK(table::Validate(welcome->map).ok());
  const std::string frame = WelcomeFrame(*welcome);
  const Result<Welcome> again = ParseAnswer(TextOf(frame));
  CHECK(again.ok()) << again.status().ToString();
  CHECK(WelcomeFrame(*again) == frame);
}

void CheckAdmin(std::string_view text) {
  const std::optional<json::object> request = ParseAdmin(text);
  if (request.has_value()) {
    const std::optional<json::object> again = ParseAdmin(TextOf(AdminFrame(*request)));
    CHECK(again.has_value());
    CHECK(AdminFrame(*again) == AdminFrame(*request));
  }
  const Result<json::object> reply = ParseReply(text);
  if (reply.ok()) CHECK(ParseReply(TextOf(ReplyFrame(*reply))).ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (size >= kFramePrefixBytes) {
    const Result<uint32_t> length = FrameLength(text.substr(0, kFramePrefixBytes));
    CHECK(!length.ok() || (*length >= 1 && *length <= kControlFrameBytesMax));
  }
  CheckHello(text);
  CheckAnswer(text);
  CheckAdmin(text);
  return 0;
}
