// The control connection's messages as JSON and as frames (control.h): a u32 little-endian length,
// then that many bytes of JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "common/io/json.h"
#include "common/net/control/control.h"

namespace engram::net {

inline constexpr size_t kFramePrefixBytes = 4;
inline constexpr size_t kKnownAnswersMax = 1024;
inline constexpr size_t kAddressBytesMax = 64 * 1024;  // of a transport
inline constexpr size_t kLocalSocketBytesMax = 108;    // sun_path
inline constexpr size_t kNameBytesMax = 64;            // of a transport's kind
inline constexpr size_t kLocalTokenBytesMax = 64;
inline constexpr size_t kOneSidedKeyBytesMax = 4096;
inline constexpr size_t kDamagedFrameBytesMax = 256;
inline constexpr size_t kNewsFrameBytesMax = 256;

// {"hello": ...}, {"welcome": ...}, {"admin": ...}, {"reply": ...}, {"refused": ...} as one frame.
std::string HelloFrame(const Hello& hello);
std::string WelcomeFrame(const Welcome& welcome);
std::string AdminFrame(const json::object& request);
std::string ReplyFrame(const json::object& reply);
std::string RefusedFrame(const Status& why);
std::string DamagedFrame(const DamagedRow& row);
std::string NewsFrame(uint32_t epoch);

// The length a frame's first four bytes announce; INVALID_ARGUMENT when 0 or over
// kControlFrameBytesMax.
Result<uint32_t> FrameLength(std::string_view prefix);

// The text inside a frame. INVALID_ARGUMENT names the key at fault.
Result<Hello> ParseHello(std::string_view text);
Result<DamagedRow> ParseDamaged(std::string_view text);
// The epoch.
Result<uint32_t> ParseNews(std::string_view text);
// The request of an admin message; nullopt when the text is none (but, say, a hello).
std::optional<json::object> ParseAdmin(std::string_view text);
// The reply, or the refusal as the node's own status.
Result<json::object> ParseReply(std::string_view text);
// A refusal comes back as the node's own status.
Result<Welcome> ParseAnswer(std::string_view text);

}  // namespace engram::net
