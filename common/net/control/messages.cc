#include "common/net/control/messages.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>

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

Result<uint64_t> NumberOf(std::string_view text, int base, std::string_view what) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) {
    return InvalidArgument(fmt::format("{}: \"{}\" is not a number of base {}", what, text, base));
  }
  return value;
}

// A non-negative JSON number that fits 32 bits.
Result<uint32_t> GetU32(const json::object& object, std::string_view key, std::string_view what) {
  ASSIGN_OR_RETURN(const int64_t value, io::GetInt(object, key, what));
  if (value < 0 || value > UINT32_MAX) {
    return InvalidArgument(
        fmt::format("{}: {} is {}, must be 0..{}", what, key, value, UINT32_MAX));
  }
  return static_cast<uint32_t>(value);
}

Result<const json::object*> GetObject(const json::object& object, std::string_view key,
                                      std::string_view what) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || !value->is_object()) {
    return InvalidArgument(fmt::format("{}: no object \"{}\"", what, key));
  }
  return &value->get_object();
}

Result<const json::array*> GetArray(const json::object& object, std::string_view key,
                                    size_t count_max, std::string_view what) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || !value->is_array() || value->get_array().size() > count_max) {
    return InvalidArgument(
        fmt::format("{}: no array \"{}\" of at most {} entries", what, key, count_max));
  }
  return &value->get_array();
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

json::object ToJson(const table::ClusterMap& map) {
  json::array members;
  for (const std::string& member : map.members) members.emplace_back(member);
  return {{"epoch", map.epoch}, {"members", std::move(members)}};
}

Result<table::ClusterMap> MapFromJson(const json::object& object) {
  table::ClusterMap map;
  ASSIGN_OR_RETURN(map.epoch, GetU32(object, "epoch", "map"));
  ASSIGN_OR_RETURN(const json::array* members,
                   GetArray(object, "members", table::kMembersMax, "map"));
  for (const json::value& member : *members) {
    if (!member.is_string()) return InvalidArgument("map: a member that is not a string");
    map.members.emplace_back(member.get_string());
  }
  RETURN_IF_ERROR(table::Validate(map));
  return map;
}

Result<KnownAnswer> AnswerFromJson(const json::value& value) {
  if (!value.is_object()) return InvalidArgument("known_answers: an entry that is not an object");
  KnownAnswer answer;
  ASSIGN_OR_RETURN(answer.layer_index, GetU32(value.get_object(), "layer", "known answer"));
  ASSIGN_OR_RETURN(const std::string row, io::GetString(value.get_object(), "row", "known answer"));
  ASSIGN_OR_RETURN(answer.row, NumberOf(row, 10, "known answer: row"));
  ASSIGN_OR_RETURN(answer.sha256_hex, io::GetString(value.get_object(), "sha256", "known answer"));
  return answer;
}

// "" when the key is absent.
Result<std::string> GetOptionalString(const json::object& object, std::string_view key,
                                      size_t bytes_max) {
  if (!object.contains(key)) return std::string();
  ASSIGN_OR_RETURN(std::string text, io::GetString(object, key, "welcome"));
  if (text.size() <= bytes_max) return text;
  return InvalidArgument(
      fmt::format("welcome: {} of {} bytes, at most {}", key, text.size(), bytes_max));
}

Result<std::string> GetOptionalRaw(const json::object& object, std::string_view key,
                                   size_t bytes_max) {
  ASSIGN_OR_RETURN(const std::string hex, GetOptionalString(object, key, 2 * bytes_max));
  return RawOf(hex, fmt::format("welcome: {}", key), bytes_max);
}

Status AddOptional(const json::object& object, Welcome* welcome) {
  if (object.contains("window")) {
    ASSIGN_OR_RETURN(welcome->window, GetU32(object, "window", "welcome"));
  }
  ASSIGN_OR_RETURN(welcome->transport, GetOptionalString(object, "transport", kNameBytesMax));
  ASSIGN_OR_RETURN(welcome->local_socket,
                   GetOptionalString(object, "local_socket", kLocalSocketBytesMax));
  ASSIGN_OR_RETURN(welcome->local_token,
                   GetOptionalRaw(object, "local_token", kLocalTokenBytesMax));
  ASSIGN_OR_RETURN(welcome->one_sided_key,
                   GetOptionalRaw(object, "one_sided_key", kOneSidedKeyBytesMax));
  if (object.contains("takes_damage")) {
    ASSIGN_OR_RETURN(welcome->takes_damage, io::GetBool(object, "takes_damage", "welcome"));
  }
  if (!object.contains("generation")) return OkStatus();
  ASSIGN_OR_RETURN(const std::string generation, io::GetString(object, "generation", "welcome"));
  ASSIGN_OR_RETURN(welcome->generation, NumberOf(generation, 10, "welcome: generation"));
  return OkStatus();
}

Result<Welcome> WelcomeFromJson(const json::object& object) {
  Welcome welcome;
  ASSIGN_OR_RETURN(welcome.member, io::GetString(object, "member", "welcome"));
  ASSIGN_OR_RETURN(const json::object* map, GetObject(object, "map", "welcome"));
  ASSIGN_OR_RETURN(welcome.map, MapFromJson(*map));
  ASSIGN_OR_RETURN(const json::object* identity, GetObject(object, "identity", "welcome"));
  ASSIGN_OR_RETURN(welcome.identity, table::IdentityFromJson(*identity));
  ASSIGN_OR_RETURN(const std::string session, io::GetString(object, "session", "welcome"));
  ASSIGN_OR_RETURN(welcome.session, NumberOf(session, 16, "welcome: session"));
  ASSIGN_OR_RETURN(welcome.settings, io::GetString(object, "settings", "welcome"));
  ASSIGN_OR_RETURN(const std::string address, io::GetString(object, "address", "welcome"));
  ASSIGN_OR_RETURN(welcome.address, RawOf(address, "welcome: address"));
  ASSIGN_OR_RETURN(const json::array* answers,
                   GetArray(object, "known_answers", kKnownAnswersMax, "welcome"));
  for (const json::value& value : *answers) {
    ASSIGN_OR_RETURN(KnownAnswer answer, AnswerFromJson(value));
    welcome.known_answers.push_back(std::move(answer));
  }
  RETURN_IF_ERROR(AddOptional(object, &welcome));
  return welcome;
}

Status StatusFromJson(const json::object& object) {
  const Result<uint32_t> code = GetU32(object, "code", "refused");
  const Result<std::string> message = io::GetString(object, "message", "refused");
  if (!code.ok() || !message.ok() || *code == 0 || *code > static_cast<uint32_t>(Code::kInternal)) {
    return InternalError("refused, without a readable reason");
  }
  return {static_cast<Code>(*code), *message};
}

}  // namespace

std::string HelloFrame(const Hello& hello) {
  return Frame("hello", {{"protocol", hello.protocol},
                         {"identity", table::ToJson(hello.identity)},
                         {"transport", hello.transport},
                         {"settings", hello.settings},
                         {"address", HexOf(hello.address)}});
}

std::string WelcomeFrame(const Welcome& welcome) {
  json::array answers;
  for (const KnownAnswer& answer : welcome.known_answers) {
    answers.push_back(json::object{{"layer", answer.layer_index},
                                   {"row", std::to_string(answer.row)},
                                   {"sha256", answer.sha256_hex}});
  }
  json::object content = {{"member", welcome.member},
                          {"map", ToJson(welcome.map)},
                          {"identity", table::ToJson(welcome.identity)},
                          {"session", fmt::format("{:016x}", welcome.session)},
                          {"settings", welcome.settings},
                          {"address", HexOf(welcome.address)},
                          {"known_answers", std::move(answers)}};
  if (welcome.window != 0) content["window"] = welcome.window;
  if (welcome.takes_damage) content["takes_damage"] = true;
  const auto add = [&](std::string_view key, std::string text) {
    if (!text.empty()) content[key] = std::move(text);
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
  if (!value.is_object()) return InvalidArgument("damaged row: not an object");
  ASSIGN_OR_RETURN(const json::object* object,
                   GetObject(value.get_object(), "damaged", "damaged row"));
  DamagedRow damaged;
  ASSIGN_OR_RETURN(damaged.layer_index, GetU32(*object, "layer", "damaged row"));
  ASSIGN_OR_RETURN(const std::string row, io::GetString(*object, "row", "damaged row"));
  ASSIGN_OR_RETURN(damaged.row, NumberOf(row, 10, "damaged row: row"));
  return damaged;
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
  if (!value.is_object()) return InvalidArgument("reply: not an object");
  const Result<const json::object*> refused = GetObject(value.get_object(), "refused", "reply");
  if (refused.ok()) return StatusFromJson(**refused);
  ASSIGN_OR_RETURN(const json::object* reply, GetObject(value.get_object(), "reply", "reply"));
  return *reply;
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
  if (!value.is_object()) return InvalidArgument("hello: not an object");
  ASSIGN_OR_RETURN(const json::object* object, GetObject(value.get_object(), "hello", "message"));
  Hello hello;
  ASSIGN_OR_RETURN(hello.protocol, GetU32(*object, "protocol", "hello"));
  if (hello.protocol != kControlProtocol) {
    return FailedPrecondition(fmt::format("the client speaks control protocol {}, this node {}",
                                          hello.protocol, kControlProtocol));
  }
  ASSIGN_OR_RETURN(const json::object* identity, GetObject(*object, "identity", "hello"));
  ASSIGN_OR_RETURN(hello.identity, table::IdentityFromJson(*identity));
  ASSIGN_OR_RETURN(hello.transport, io::GetString(*object, "transport", "hello"));
  ASSIGN_OR_RETURN(hello.settings, io::GetString(*object, "settings", "hello"));
  ASSIGN_OR_RETURN(const std::string address, io::GetString(*object, "address", "hello"));
  ASSIGN_OR_RETURN(hello.address, RawOf(address, "hello: address"));
  return hello;
}

Result<Welcome> ParseAnswer(std::string_view text) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJson(text, "answer to hello"));
  if (!value.is_object()) return InvalidArgument("answer to hello: not an object");
  const Result<const json::object*> refused = GetObject(value.get_object(), "refused", "answer");
  if (refused.ok()) return StatusFromJson(**refused);
  ASSIGN_OR_RETURN(const json::object* object, GetObject(value.get_object(), "welcome", "answer"));
  return WelcomeFromJson(*object);
}

}  // namespace engram::net
