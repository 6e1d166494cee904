#include "memnode/cluster/etcd_answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "common/io/json.h"
#include "common/io/object_reader.h"

namespace engram::memnode {
namespace {

constexpr std::string_view kAnswer = "not an answer of etcd";
constexpr size_t kMessageBytesMax = 300;
constexpr int kGrpcInvalidArgument = 3;
constexpr int kGrpcUnauthenticated = 16;

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// As protobuf's JSON has it, a member with the default value is left out.
void ReadNumber(io::ObjectReader& read, std::string_view key, int64_t& out) {
  if (read.Has(key)) read.Number(key, out);
  if (out < 0) read.Fail(InvalidArgument(fmt::format("{}: \"{}\" is {}", kAnswer, key, out)));
}
void ReadBool(io::ObjectReader& read, std::string_view key, bool& out) {
  if (read.Has(key)) read.Bool(key, out);
}
void ReadBytes(io::ObjectReader& read, std::string_view key, std::string& out) {
  if (!read.Has(key)) return;
  std::string text;
  read.String(key, text);
  if (!read.status().ok()) return;
  std::optional<std::string> bytes = FromBase64(text);
  if (!bytes) return read.Fail(InvalidArgument(fmt::format("{}: bad \"{}\"", kAnswer, key)));
  out = *std::move(bytes);
}

Result<EtcdValue> ReadValue(const json::value& item) {
  EtcdValue value;
  io::ObjectReader read(item, kAnswer);
  ReadBytes(read, "key", value.key);
  ReadBytes(read, "value", value.bytes);
  ReadNumber(read, "mod_revision", value.mod_revision);
  RETURN_IF_ERROR(read.status());
  if (!value.key.empty() && value.mod_revision > 0) return value;
  return InvalidArgument(fmt::format("{}: a value without key or revision", kAnswer));
}

Result<std::vector<EtcdValue>> ReadValues(io::ObjectReader& read) {
  std::vector<EtcdValue> values;
  if (!read.Has("kvs")) return values;
  for (const json::value& item : read.Array("kvs", kEtcdValuesMax)) {
    ASSIGN_OR_RETURN(EtcdValue value, ReadValue(item));
    values.push_back(std::move(value));
  }
  RETURN_IF_ERROR(read.status());
  return values;
}

Result<std::optional<EtcdValue>> ReadOnlyValue(const json::value& response) {
  io::ObjectReader read(response, kAnswer);
  const json::object& range = read.Object("response_range");
  RETURN_IF_ERROR(read.status());
  io::ObjectReader read_range(range, kAnswer);
  ASSIGN_OR_RETURN(std::vector<EtcdValue> values, ReadValues(read_range));
  if (values.empty()) return std::optional<EtcdValue>();
  if (values.size() == 1) return std::optional<EtcdValue>(std::move(values.front()));
  return InvalidArgument(fmt::format("{}: {} values of one key", kAnswer, values.size()));
}

Status ReadEvents(io::ObjectReader& read, EtcdNews& news) {
  if (!read.Has("events")) return OkStatus();
  for (const json::value& item : read.Array("events", kEtcdValuesMax)) {
    EtcdNews::Event event;
    io::ObjectReader read_event(item, kAnswer);
    std::string type = "PUT";
    if (read_event.Has("type")) read_event.String("type", type);
    const json::object& kv = read_event.Object("kv");
    RETURN_IF_ERROR(read_event.status());
    ASSIGN_OR_RETURN(event.value, ReadValue(json::value(kv)));
    if (type != "PUT" && type != "DELETE") {
      return InvalidArgument(fmt::format("{}: an event of type \"{:.20}\"", kAnswer, type));
    }
    event.removed = type == "DELETE";
    if (event.removed) event.value.bytes.clear();
    news.events.push_back(std::move(event));
  }
  return read.status();
}

// A peer's words, for messages.
std::string Shortened(std::string_view text) {
  std::string shown(text.substr(0, kMessageBytesMax));
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return shown;
}

}  // namespace

Result<EtcdRange> ParseEtcdRange(std::string_view text) {
  ASSIGN_OR_RETURN(const json::value document, io::ParseJson(text, kAnswer));
  EtcdRange range;
  io::ObjectReader read(document, kAnswer);
  const json::object& header = read.Object("header");
  io::ObjectReader read_header(header, kAnswer);
  read_header.Number("revision", range.revision);
  RETURN_IF_ERROR(read.status());
  RETURN_IF_ERROR(read_header.status());
  if (range.revision < 1 || range.revision == INT64_MAX) {
    return InvalidArgument(fmt::format("{}: revision {}", kAnswer, range.revision));
  }
  ASSIGN_OR_RETURN(range.values, ReadValues(read));
  return range;
}

Result<EtcdSwap> ParseEtcdSwap(std::string_view text) {
  ASSIGN_OR_RETURN(const json::value document, io::ParseJson(text, kAnswer));
  EtcdSwap swap;
  io::ObjectReader read(document, kAnswer);
  read.Object("header");
  ReadBool(read, "succeeded", swap.succeeded);
  const json::array& responses = read.Array("responses", kEtcdValuesMax);
  RETURN_IF_ERROR(read.status());
  if (swap.succeeded) return swap;
  if (responses.size() != 1) {
    return InvalidArgument(
        fmt::format("{}: {} responses of one request", kAnswer, responses.size()));
  }
  ASSIGN_OR_RETURN(swap.found, ReadOnlyValue(responses[0]));
  return swap;
}

Result<EtcdNews> ParseEtcdNews(std::string_view line) {
  ASSIGN_OR_RETURN(const json::value document, io::ParseJson(line, kAnswer));
  EtcdNews news;
  io::ObjectReader read_line(document, kAnswer);
  if (read_line.Has("error")) {
    news.cancelled = ParseEtcdRefusal(200, line).message;
    return news;
  }
  const json::object& result = read_line.Object("result");
  RETURN_IF_ERROR(read_line.status());
  io::ObjectReader read(result, kAnswer);
  bool cancelled = false;
  int64_t compact_revision = 0;
  std::string reason;
  ReadBool(read, "created", news.created);
  ReadBool(read, "canceled", cancelled);
  if (read.Has("cancel_reason")) read.String("cancel_reason", reason);
  ReadNumber(read, "compact_revision", compact_revision);
  RETURN_IF_ERROR(read.status());
  RETURN_IF_ERROR(ReadEvents(read, news));
  news.compacted = compact_revision > 0;
  if (news.compacted) {
    news.cancelled = fmt::format("compacted up to revision {}", compact_revision);
  } else if (cancelled) {
    news.cancelled = reason.empty() ? "cancelled without a reason" : Shortened(reason);
  }
  return news;
}

Result<std::string> ParseEtcdToken(std::string_view text) {
  ASSIGN_OR_RETURN(const json::value document, io::ParseJson(text, kAnswer));
  std::string token;
  io::ObjectReader read(document, kAnswer);
  read.String("token", token);
  RETURN_IF_ERROR(read.status());
  const auto printable = [](char c) { return c > ' ' && c <= '~'; };
  if (!token.empty() && std::all_of(token.begin(), token.end(), printable)) return token;
  return InvalidArgument(fmt::format("{}: an unusable token", kAnswer));
}

EtcdRefusal ParseEtcdRefusal(int http_status, std::string_view text) {
  const auto document = io::ParseJson(text, kAnswer);
  const json::object* object = document.ok() ? document->if_object() : nullptr;
  // A stream's errors are an object of their own.
  const json::value* const inner = object == nullptr ? nullptr : object->if_contains("error");
  if (inner != nullptr && inner->is_object()) object = &inner->get_object();
  EtcdRefusal refusal;
  if (object != nullptr) {
    for (const char* key : {"code", "grpc_code"}) {
      const json::value* const code = object->if_contains(key);
      const int64_t* const number = code == nullptr ? nullptr : code->if_int64();
      if (number != nullptr && *number > 0 && *number <= kGrpcUnauthenticated) {
        refusal.grpc_code = static_cast<int>(*number);
      }
    }
    for (const char* key : {"error", "message"}) {
      const json::value* const message = object->if_contains(key);
      if (message != nullptr && message->is_string()) {
        refusal.message = Shortened(message->get_string());
      }
    }
  }
  if (!refusal.message.empty()) return refusal;
  refusal.grpc_code = kGrpcUnknown;
  refusal.message =
      fmt::format("{}: HTTP status {}, \"{:.120}\"", kAnswer, http_status, Shortened(text));
  return refusal;
}

bool RefusesEtcdToken(int grpc_code, std::string_view message) {
  const auto says = [&](std::string_view words) {
    return message.find(words) != std::string_view::npos;
  };
  return says("invalid auth token") ||
         ((grpc_code == kGrpcInvalidArgument || grpc_code == kGrpcUnknown) &&
          says("revision of auth store is old"));
}

std::string Base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j) {
      group = group << 8 | (j < count ? static_cast<uint8_t>(bytes[i + j]) : 0u);
    }
    for (size_t j = 0; j < 4; ++j) {
      text += j <= count ? kDigits[group >> (18 - 6 * j) & 63] : '=';
    }
  }
  return text;
}

std::optional<std::string> FromBase64(std::string_view text) {
  static constexpr std::array<int8_t, 256> kValues = [] {
    std::array<int8_t, 256> values{};
    values.fill(-1);
    for (size_t i = 0; i < kDigits.size(); ++i) {
      values[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);
    }
    return values;
  }();
  if (text.size() % 4 != 0) return std::nullopt;
  size_t padding = 0;
  while (padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++padding;
  }
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3 + 2);
  uint32_t group = 0;
  int bits = 0;
  for (const char c : text) {
    const int8_t value = kValues[static_cast<uint8_t>(c)];
    if (value < 0) return std::nullopt;
    group = (group << 6 | static_cast<uint32_t>(value)) & 0xffffff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(group >> bits & 0xff);
  }
  if ((group & ((1u << bits) - 1)) != 0) return std::nullopt;  // bits that stand for nothing
  return bytes;
}

}  // namespace engram::memnode
