#include "common/text/pretokenizer.h"

#include <fmt/format.h>

#include "common/text/utf8.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace engram::text {
namespace {

// Far above what the known patterns need on any text; a pattern that backtracks without end stops.
constexpr uint32_t kMatchLimit = 100'000'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;
constexpr size_t kJitStackStartBytes = size_t{32} << 10;
constexpr size_t kJitStackMaxBytes = size_t{4} << 20;
constexpr size_t kPatternsMax = 32;

constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string Pcre2Message(int error) {
  PCRE2_UCHAR text[256];
  if (pcre2_get_error_message(error, text, sizeof(text)) < 0) return fmt::format("error {}", error);
  return reinterpret_cast<const char*>(text);
}

struct Freer {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};

// False unless the member is absent or false.
Status RefuseTrue(const json::object& object, const char* key, const std::string& what) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || (value->is_bool() && !value->get_bool())) return OkStatus();
  return InvalidArgument(fmt::format("{}: \"{}\": {} is not supported, only false", what, key,
                                     json::serialize(*value)));
}

}  // namespace

// One compiled expression that cuts a text into its matches and what lies between them.
class PreTokenizer::Pattern {
 public:
  Pattern(pcre2_code* code, std::string source) : code_(code), source_(std::move(source)) {}

  Status Cut(std::string_view piece, pcre2_match_context* context,
             std::vector<std::string_view>& out) const {
    const std::unique_ptr<pcre2_match_data, Freer> match(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    if (match == nullptr) return ResourceExhausted("cannot split text: out of memory");
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(piece.data());
    size_t cut = 0;  // everything before is in `out`
    for (size_t at = 0; at < piece.size();) {
      const int count = pcre2_match(code_.get(), subject, piece.size(), at, PCRE2_NO_UTF_CHECK,
                                    match.get(), context);
      if (count == PCRE2_ERROR_NOMATCH) break;
      if (count < 0) {
        return ResourceExhausted(fmt::format("cannot split {} bytes of text by the pattern {}: {}",
                                             piece.size(), source_, Pcre2Message(count)));
      }
      const size_t* offsets = pcre2_get_ovector_pointer(match.get());
      if (offsets[1] == offsets[0]) {  // an empty match cuts nothing
        if (offsets[0] >= piece.size()) break;
        at = offsets[0] + StepUtf8(piece, offsets[0]).length;
        continue;
      }
      if (offsets[0] > cut) out.push_back(piece.substr(cut, offsets[0] - cut));
      out.push_back(piece.substr(offsets[0], offsets[1] - offsets[0]));
      at = cut = offsets[1];
    }
    if (cut < piece.size()) out.push_back(piece.substr(cut));
    return OkStatus();
  }

 private:
  std::unique_ptr<pcre2_code, Freer> code_;
  std::string source_;
};

PreTokenizer::PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<std::vector<std::string_view>> PreTokenizer::Split(std::string_view utf8) const {
  std::vector<std::string_view> pieces;
  if (utf8.empty()) return pieces;
  pieces.push_back(utf8);
  const std::unique_ptr<pcre2_match_context, Freer> context(pcre2_match_context_create(nullptr));
  const std::unique_ptr<pcre2_jit_stack, Freer> stack(
      pcre2_jit_stack_create(kJitStackStartBytes, kJitStackMaxBytes, nullptr));
  if (context == nullptr) return ResourceExhausted("cannot split text: out of memory");
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  std::vector<std::string_view> next;
  for (const auto& pattern : patterns_) {
    next.clear();
    for (const std::string_view piece : pieces) {
      RETURN_IF_ERROR(pattern->Cut(piece, context.get(), next));
    }
    pieces.swap(next);
  }
  return pieces;
}

Status PreTokenizer::AddPattern(const std::string& pattern, bool literal, const std::string& what) {
  if (patterns_.size() == kPatternsMax) {
    return InvalidArgument(fmt::format("{}: more than {} patterns", what, kPatternsMax));
  }
  const size_t valid = ValidUtf8Prefix(pattern);
  if (pattern.empty() || valid != pattern.size()) {
    return InvalidArgument(
        fmt::format("{}: a pattern is {}", what, pattern.empty() ? "empty" : "not valid UTF-8"));
  }
  const uint32_t options = literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP;
  int error = 0;
  size_t error_offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   options, &error, &error_offset, nullptr);
  if (code == nullptr) {
    return InvalidArgument(fmt::format("{}: pattern {}: {} at byte {}", what, pattern,
                                       Pcre2Message(error), error_offset));
  }
  // Where there is no just-in-time compiler the interpreter gives the same matches.
  (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  patterns_.push_back(std::make_unique<Pattern>(code, pattern));
  return OkStatus();
}

Status PreTokenizer::AddStep(const json::object& step, const std::string& what) {
  ASSIGN_OR_RETURN(const std::string type, io::GetString(step, "type", what));
  if (type == "ByteLevel") {
    RETURN_IF_ERROR(RefuseTrue(step, "add_prefix_space", what + ": ByteLevel"));
    const json::value* use_regex = step.if_contains("use_regex");
    if (use_regex != nullptr && use_regex->is_bool() && !use_regex->get_bool()) return OkStatus();
    return AddPattern(kGpt2Pattern, false, what);
  }
  if (type != "Split") {
    return InvalidArgument(
        fmt::format("{}: step \"{}\" is not supported, only Split and ByteLevel", what, type));
  }
  ASSIGN_OR_RETURN(const std::string behavior, io::GetString(step, "behavior", what));
  if (behavior != "Isolated") {
    return InvalidArgument(
        fmt::format("{}: Split behavior \"{}\" is not supported, only Isolated", what, behavior));
  }
  RETURN_IF_ERROR(RefuseTrue(step, "invert", what + ": Split"));
  const json::value* pattern = step.if_contains("pattern");
  if (pattern != nullptr && pattern->is_object()) {
    const json::object& object = pattern->get_object();
    const bool literal = object.contains("String");
    ASSIGN_OR_RETURN(const std::string source,
                     io::GetString(object, literal ? "String" : "Regex", what + ": Split pattern"));
    return AddPattern(source, literal, what);
  }
  return InvalidArgument(what + ": Split without a pattern object");
}

Result<PreTokenizer> PreTokenizer::FromJson(const json::value& value, const std::string& what) {
  if (!value.is_object()) return InvalidArgument(what + ": it is not an object");
  const json::object& object = value.get_object();
  ASSIGN_OR_RETURN(const std::string type, io::GetString(object, "type", what));
  PreTokenizer result;
  bool byte_level = type == "ByteLevel";
  if (type != "Sequence") {
    RETURN_IF_ERROR(result.AddStep(object, what));
  } else {
    const json::value* steps = object.if_contains("pretokenizers");
    if (steps == nullptr || !steps->is_array()) {
      return InvalidArgument(what + ": Sequence without a list \"pretokenizers\"");
    }
    for (const json::value& step : steps->get_array()) {
      if (!step.is_object()) return InvalidArgument(what + ": a step is not an object");
      if (byte_level) return InvalidArgument(what + ": a step follows ByteLevel");
      RETURN_IF_ERROR(result.AddStep(step.get_object(), what));
      byte_level = step.get_object().at("type") == "ByteLevel";
    }
  }
  if (!byte_level) return InvalidArgument(what + ": no ByteLevel step; not a byte-level model");
  return result;
}

json::value DeepSeekPreTokenizer() {
  constexpr const char* kWords =
      R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)re"
      R"re(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
  const auto split = [](const char* regex) {
    return json::object{{"type", "Split"},
                        {"pattern", json::object{{"Regex", regex}}},
                        {"behavior", "Isolated"},
                        {"invert", false}};
  };
  json::array steps;
  steps.push_back(split(R"(\p{N}{1,3})"));
  steps.push_back(split("[一-龥぀-ゟ゠-ヿ]+"));
  steps.push_back(split(kWords));
  steps.push_back(json::object{{"type", "ByteLevel"},
                               {"add_prefix_space", false},
                               {"trim_offsets", true},
                               {"use_regex", false}});
  return json::object{{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

}  // namespace engram::text
