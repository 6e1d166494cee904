// What etcd's v3 JSON gateway answers, read field by field: the server may be any server. Pure.
// INVALID_ARGUMENT says what is wrong with an answer. Keys and values are base64 on the wire.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace engram::memnode {

inline constexpr size_t kEtcdValuesMax = 4096;  // of one answer

struct EtcdValue {
  std::string key;
  std::string bytes;
  int64_t mod_revision = 0;
  bool operator==(const EtcdValue&) const = default;
};

struct EtcdRange {
  int64_t revision = 0;  // etcd's own, of the moment of the answer
  std::vector<EtcdValue> values;
};
Result<EtcdRange> ParseEtcdRange(std::string_view text);

// Of a transaction whose failure branch reads the key.
struct EtcdSwap {
  bool succeeded = false;
  std::optional<EtcdValue> found;  // when it did not: the key as it is; none: it is absent
};
Result<EtcdSwap> ParseEtcdSwap(std::string_view text);

// One line of a watch's answer.
struct EtcdNews {
  bool created = false;
  struct Event {
    EtcdValue value;
    bool removed = false;  // and value.bytes is empty
  };
  std::vector<Event> events;
  std::string cancelled;  // why etcd ends the watch; empty: it does not
  bool compacted = false;
};
Result<EtcdNews> ParseEtcdNews(std::string_view line);

Result<std::string> ParseEtcdToken(std::string_view text);

// An answer whose HTTP status is not 200, or a line of a stream that is an error.
inline constexpr int kGrpcUnknown = 2;  // of what is not etcd's too
struct EtcdRefusal {
  int grpc_code = kGrpcUnknown;
  std::string message;  // of printable characters, shortened
};
EtcdRefusal ParseEtcdRefusal(int http_status, std::string_view text);
// Whether it is about the token: another one may do. The text is what etcd puts into messages of
// refusals and of cancelled watches.
bool RefusesEtcdToken(int grpc_code, std::string_view message);

std::string Base64(std::string_view bytes);
// Nothing where it is not canonical base64 with padding.
std::optional<std::string> FromBase64(std::string_view text);

}  // namespace engram::memnode
