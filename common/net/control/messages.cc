#include "common/net/control/messages.h"

#include <fmt/format.h>

#include <cstring>

#include "common/io/object_reader.h"

namespace engram::net {
namespace {

std::string HexOf(std::string_view raw) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(raw.size() * 2);
  for (const char c : raw) {
    const auto byte = static_cast<unsigned char>(c);
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

int NibbleOf(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

Result<std::string> RawOf(std::string_view hex, std::string_view what,
                          size_t bytes_max = kAddressBytesMax) {
  if (hex.size() % 2 != 0 || hex.size() > 2 * bytes_max) {
    return InvalidArgument(fmt::format("{}: {} hexadecimal digits, must be even and at most {}",
                                       what, hex.size(), 2 * bytes_max));
  }
  std::string raw;
  raw.reserve(hex.size() / 2);
  for (size_t i = 0; i < hex.size(); i += 2) {
    const int high = NibbleOf(hex[i]);
    const int low = NibbleOf(hex[i + 1]);
    if (high < 0 || low < 0) {
      return InvalidArgument(fmt::format("{}: not lower-case hexadecimal at digit {}", what, i));
    }
    raw.push_back(static_cast<char>(high * 16 + low));
  }
  return raw;
}

void ReadRaw(io::ObjectReader& read, std::string_view key, std::string_view what, size_t bytes_max,
             std::string& raw) {
  std::string hex;
  read.String(key, hex);
  auto parsed = RawOf(hex, fmt::format("{}: {}", what, key), bytes_max);
  parsed.ok() ? void(raw = *std::move(parsed)) : read.Fail(parsed.status());
}

table::TableIdentity ReadIdentity(io::ObjectReader& read) {
  auto identity = table::IdentityFromJson(read.Object("identity"));
  if (identity.ok()) return *std::move(identity);
  read.Fail(identity.status());
  return {};
}

std::string Frame(std::string_view key, json::object content) {
  json::object message;
  message[key] = std::move(content);
  const std::string text = json::serialize(message);
  const auto length = static_cast<uint32_t>(text.size());
  std::string frame(kFramePrefixBytes, '\0');
  std::memcpy(frame.data(), &length, sizeof(length));
  return frame + text;
}

Result<KnownAnswer> AnswerFromJson(const json::value& value) {
  KnownAnswer answer;
  io::ObjectReader read(value, "known answer");
  read.Int("layer", 0, UINT32_MAX, answer.layer_index);
  read.Number("row", answer.row);
  read.String("sha256", answer.sha256_hex);
  RETURN_IF_ERROR(read.status());
  return answer;
}

// Left alone when the key is absent.
void ReadOptional(io::ObjectReader& read, std::string_view key, size_t bytes_max,
                  std::string& out) {
  if (read.Has(key)) read.String(key, out);
  if (out.size() <= bytes_max) return;
  read.Fail(InvalidArgument(
      fmt::format("welcome: {} of {} bytes, at most {}", key, out.size(), bytes_max)));
}

void ReadOptionals(io::ObjectReader& read, Welcome& welcome) {
  if (read.Has("window")) read.Int("window", 0, UINT32_MAX, welcome.window);
  ReadOptional(read, "transport", kNameBytesMax, welcome.transport);
  ReadOptional(read, "local_socket", kLocalSocketBytesMax, welcome.local_socket);
  if (read.Has("local_token")) {
    ReadRaw(read, "local_token", "welcome", kLocalTokenBytesMax, welcome.local_token);
  }
  if (read.Has("one_sided_key")) {
    ReadRaw(read, "one_sided_key", "welcome", kOneSidedKeyBytesMax, welcome.one_sided_key);
  }
  if (read.Has("takes_damage")) read.Bool("takes_damage", welcome.takes_damage);
  if (read.Has("generation")) read.Number("generation", welcome.generation);
}

Result<Welcome> WelcomeFromJson(const json::object& object) {
  Welcome welcome;
  io::ObjectReader read(object, "welcome");
  read.String("member", welcome.member);
  const json::object& map = read.Object("map");
  RETURN_IF_ERROR(read.status());
  ASSIGN_OR_RETURN(welcome.map, table::MapFromJson(map));
  welcome.identity = ReadIdentity(read);
  read.Number("session", welcome.session, 16);
  read.String("settings", welcome.settings);
  ReadRaw(read, "address", "welcome", kAddressBytesMax, welcome.address);
  for (const json::value& value : read.Array("known_answers", kKnownAnswersMax)) {
    ASSIGN_OR_RETURN(welcome.known_answers.emplace_back(), AnswerFromJson(value));
  }
  ReadOptionals(read, welcome);
  RETURN_IF_ERROR(read.status());
  return welcome;
}

Status StatusFromJson(const json::object& object) {
  int code = 0;
  std::string message;
  io::ObjectReader read(object, "refused");
  read.Int("code", 1, static_cast<int64_t>(Code::kInternal), code);
  read.String("message", message);
  if (!read.status().ok()) return InternalError("refused, without a readable reason");
  return {static_cast<Code>(code), message};
}

}  // namespace

std::string HelloFrame(const Hello& hello) {
  json::object content = {{"protocol", hello.protocol},
                          {"identity", table::ToJson(hello.identity)},
                          {"transport", hello.transport},
                          {"settings", hello.settings},
                          {"address", HexOf(hello.address)}};
  if (hello.epoch != 0) content["epoch"] = hello.epoch;
  if (hello.takes_news) content["takes_news"] = true;
  return Frame("hello", std::move(content));
}

std::string WelcomeFrame(const Welcome& welcome) {
  json::array answers;
  for (const KnownAnswer& answer : welcome.known_answers) {
    answers.push_back(json::object{{"layer", answer.layer_index},
                                   {"row", std::to_string(answer.row)},
                                   {"sha256", answer.sha256_hex}});
  }
  json::object content = {{"member", welcome.member},
                          {"map", table::ToJson(welcome.map)},
                          {"identity", table::ToJson(welcome.identity)},
                          {"session", fmt::format("{:016x}", welcome.session)},
                          {"settings", welcome.settings},
                          {"address", HexOf(welcome.address)},
                          {"known_answers", std::move(answers)}};
  if (welcome.window != 0) content["window"] = welcome.window;
  if (welcome.takes_damage) content["takes_damage"] = true;
  const auto add = [&](std::string_view key, const std::string& text) {
    if (!text.empty()) content[key] = text;
  };
  if (welcome.generation != 0) add("generation", std::to_string(welcome.generation));
  add("transport", welcome.transport);
  add("local_socket", welcome.local_socket);
  add("local_token", HexOf(welcome.local_token));
  add("one_sided_key", HexOf(welcome.one_sided_key));
  return Frame("welcome", std::move(content));
}

std::string RefusedFrame(const Status& why) {
  return Frame("refused", {{"code", static_cast<int>(why.code())}, {"message", why.message()}});
}

std::string DamagedFrame(const DamagedRow& row) {
  return Frame("damaged", {{"layer", row.layer_index}, {"row", std::to_string(row.row)}});
}

Result<DamagedRow> ParseDamaged(std::string_view text) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJson(text, "damaged row"));
  io::ObjectReader message(value, "damaged row");
  io::ObjectReader read(message.Object("damaged"), "damaged row");
  RETURN_IF_ERROR(message.status());
  DamagedRow damaged;
  read.Int("layer", 0, UINT32_MAX, damaged.layer_index);
  read.Number("row", damaged.row);
  RETURN_IF_ERROR(read.status());
  return damaged;
}

std::string NewsFrame(uint32_t epoch) { return Frame("news", {{"epoch", epoch}}); }

Result<uint32_t> ParseNews(std::string_view text) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJson(text, "news"));
  io::ObjectReader message(value, "news");
  io::ObjectReader read(message.Object("news"), "news");
  RETURN_IF_ERROR(message.status());
  uint32_t epoch = 0;
  read.Int("epoch", 1, UINT32_MAX, epoch);
  RETURN_IF_ERROR(read.status());
  return epoch;
}

std::string AdminFrame(const json::object& request) { return Frame("admin", request); }

std::string ReplyFrame(const json::object& reply) { return Frame("reply", reply); }

std::optional<json::object> ParseAdmin(std::string_view text) {
  const Result<json::value> value = io::ParseJson(text, "admin");
  if (!value.ok() || !value->is_object()) return std::nullopt;
  const json::value* request = value->get_object().if_contains("admin");
  if (request == nullptr || !request->is_object()) return std::nullopt;
  return request->get_object();
}

Result<json::object> ParseReply(std::string_view text) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJson(text, "reply"));
  io::ObjectReader message(value, "reply");
  if (message.Has("refused")) return StatusFromJson(message.Object("refused"));
  const json::object& reply = message.Object("reply");
  RETURN_IF_ERROR(message.status());
  return reply;
}

Result<uint32_t> FrameLength(std::string_view prefix) {
  uint32_t length = 0;
  CHECK_EQ(prefix.size(), sizeof(length));
  std::memcpy(&length, prefix.data(), sizeof(length));
  if (length >= 1 && length <= kControlFrameBytesMax) return length;
  return InvalidArgument(fmt::format("control frame of {} bytes, must be 1..{}: not an Engram peer",
                                     length, kControlFrameBytesMax));
}

Result<Hello> ParseHello(std::string_view text) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJson(text, "hello"));
  io::ObjectReader message(value, "message");
  io::ObjectReader read(message.Object("hello"), "hello");
  RETURN_IF_ERROR(message.status());
  Hello hello;
  read.Int("protocol", 0, UINT32_MAX, hello.protocol);
  if (read.status().ok() && hello.protocol != kControlProtocol) {
    return FailedPrecondition(fmt::format("the client speaks control protocol {}, this node {}",
                                          hello.protocol, kControlProtocol));
  }
  hello.identity = ReadIdentity(read);
  read.String("transport", hello.transport);
  read.String("settings", hello.settings);
  ReadRaw(read, "address", "hello", kAddressBytesMax, hello.address);
  if (read.Has("epoch")) read.Int("epoch", 0, UINT32_MAX, hello.epoch);
  if (read.Has("takes_news")) read.Bool("takes_news", hello.takes_news);
  RETURN_IF_ERROR(read.status());
  return hello;
}

Result<Welcome> ParseAnswer(std::string_view text) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJson(text, "answer to hello"));
  io::ObjectReader message(value, "answer to hello");
  if (message.Has("refused")) return StatusFromJson(message.Object("refused"));
  const json::object& welcome = message.Object("welcome");
  RETURN_IF_ERROR(message.status());
  return WelcomeFromJson(welcome);
}

}  // namespace engram::net
