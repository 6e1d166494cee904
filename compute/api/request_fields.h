// Every field of a request that is known, and what is done about it: one table for all kinds of
// request and the objects inside them. A field that is not in it is refused by name.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/io/json.h"
#include "compute/api/api_error.h"

namespace engram::compute {

enum class FieldUse : uint8_t {
  kHonoured,       // api_request reads it
  kNeutral,        // servers that act on it give another answer: refused unless it asks for nothing
  kNeutralIfNull,  // the same, where being there asks for something: {} of web_search_options
  kHarmless,       // changes no answer; ignored
};

// The objects that have fields, as bits.
enum ObjectKind : uint8_t {
  kCompletion = 1,
  kChat = 2,
  kTokenize = 4,
  kDetokenize = 8,
  kMessage = 16,      // one of "messages"
  kContentPart = 32,  // of a message's content
  kStreamOptions = 64,
};

struct RequestField {
  std::string_view name;
  uint8_t kinds;  // of ObjectKind, those it is known in
  FieldUse use;
  // Of kNeutral and kNeutralIfNull: a JSON array of the values that ask for what is done anyway.
  // null always does; "", [] and {} do of kNeutral.
  std::string_view neutral = "[]";
};
std::span<const RequestField> RequestFields();

// What is wrong with the names of `object`'s fields, or with the values of neutral ones; `param`
// is the field of the request that holds the object, empty for the request itself. With `unknown`
// fields that are not known are not refused but added to it.
ApiError CheckFields(const json::object& object, ObjectKind kind, std::string_view param,
                     std::vector<std::string>* unknown);

}  // namespace engram::compute
