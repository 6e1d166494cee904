#include "compute/api/request_fields.h"

#include <fmt/format.h>

#include <map>

#include "common/config/nearest.h"
#include "common/text/utf8.h"
#include "compute/api/field_reader.h"

namespace engram::compute {
namespace {

using enum FieldUse;
constexpr uint8_t kBoth = kCompletion | kChat;
constexpr uint8_t kPrompts = kBoth | kTokenize;
constexpr size_t kNameBytesShown = 60;    // of a name that a client chose
constexpr size_t kUnknownNamesMax = 100;  // of one request, to be logged

constexpr RequestField kFields[] = {
    // What is read.
    {"model", kPrompts | kDetokenize, kHonoured},
    {"prompt", kCompletion | kTokenize, kHonoured},
    {"messages", kChat | kTokenize, kHonoured},
    {"tokens", kDetokenize, kHonoured},
    {"add_generation_prompt", kChat | kTokenize, kHonoured},
    {"max_tokens", kBoth, kHonoured},
    {"max_completion_tokens", kChat, kHonoured},
    {"temperature", kBoth, kHonoured},
    {"top_p", kBoth, kHonoured},
    {"top_k", kBoth, kHonoured},
    {"min_p", kBoth, kHonoured},
    {"seed", kBoth, kHonoured},
    {"presence_penalty", kBoth, kHonoured},
    {"frequency_penalty", kBoth, kHonoured},
    {"logit_bias", kBoth, kHonoured},
    {"logprobs", kBoth, kHonoured},
    {"top_logprobs", kChat, kHonoured},
    {"stop", kBoth, kHonoured},
    {"stop_token_ids", kBoth, kHonoured},
    {"include_stop_str_in_output", kBoth, kHonoured},
    {"ignore_eos", kBoth, kHonoured},
    {"stream", kBoth, kHonoured},
    {"stream_options", kBoth, kHonoured},
    {"include_usage", kStreamOptions, kHonoured},
    {"role", kMessage, kHonoured},
    {"content", kMessage, kHonoured},
    {"type", kContentPart, kHonoured},
    {"text", kContentPart, kHonoured},

    // OpenAI's.
    {"n", kBoth, kNeutral, "[1]"},
    {"best_of", kBoth, kNeutral, "[1]"},
    {"echo", kBoth, kNeutral, "[false]"},
    {"suffix", kBoth, kNeutral},
    {"response_format", kBoth, kNeutral, R"([{"type":"text"}])"},
    {"tools", kPrompts, kNeutral},
    {"tool_choice", kBoth, kNeutral, R"(["none","auto"])"},
    {"parallel_tool_calls", kBoth, kNeutral, "[true,false]"},  // there are no tools to call
    {"functions", kBoth, kNeutral},
    {"function_call", kBoth, kNeutral, R"(["none","auto"])"},
    {"modalities", kBoth, kNeutral, R"([["text"]])"},
    {"audio", kBoth, kNeutral},
    {"prediction", kBoth, kNeutral},
    {"reasoning_effort", kBoth, kNeutral, R"(["none"])"},
    {"reasoning", kBoth, kNeutral, R"([{"enabled":false},{"effort":"none"}])"},
    {"verbosity", kBoth, kNeutral, R"(["medium"])"},
    {"web_search_options", kBoth, kNeutralIfNull},  // {} searches
    {"user", kBoth, kHarmless},
    {"store", kBoth, kHarmless},
    {"metadata", kBoth, kHarmless},
    {"service_tier", kBoth, kHarmless},
    {"safety_identifier", kBoth, kHarmless},
    {"prompt_cache_key", kBoth, kHarmless},
    {"prompt_cache_retention", kBoth, kHarmless},
    {"include_obfuscation", kStreamOptions, kHarmless},
    {"name", kMessage, kHarmless},  // the templates say roles only
    {"refusal", kMessage, kNeutral},
    {"tool_calls", kMessage, kNeutral},
    {"tool_call_id", kMessage, kNeutral},
    {"function_call", kMessage, kNeutral},
    {"audio", kMessage, kNeutral},
    {"annotations", kMessage | kContentPart, kNeutral},

    // vLLM's, most of them SGLang's too.
    {"repetition_penalty", kBoth, kNeutral, "[1]"},
    {"length_penalty", kBoth, kNeutral, "[1]"},
    {"use_beam_search", kBoth, kNeutral, "[false]"},
    {"early_stopping", kBoth, kNeutral, "[false]"},
    {"min_tokens", kBoth, kNeutral, "[0]"},
    {"skip_special_tokens", kBoth, kNeutral, "[false]"},  // they are shown
    {"spaces_between_special_tokens", kBoth, kHarmless},  // there are none
    {"detokenize", kBoth, kNeutral, "[true]"},
    {"truncate_prompt_tokens", kBoth, kNeutral},
    {"truncation_side", kBoth, kHarmless},  // nothing is truncated
    {"prompt_logprobs", kBoth, kNeutral},
    {"logprob_token_ids", kBoth, kNeutral},
    {"allowed_token_ids", kBoth, kNeutral},
    {"bad_words", kBoth, kNeutral},
    {"logits_processors", kBoth, kNeutral},
    {"watermarking", kBoth, kNeutral, "[false]"},
    {"prompt_embeds", kBoth, kNeutral},
    {"add_special_tokens", kPrompts, kNeutral, "[false]"},
    {"return_token_strs", kTokenize, kNeutral, "[false]"},
    {"continue_final_message", kChat | kTokenize, kNeutral, "[false]"},
    {"documents", kBoth, kNeutral},
    {"chat_template", kChat | kTokenize, kNeutral},
    {"chat_template_kwargs", kChat | kTokenize, kNeutral},
    {"media_io_kwargs", kPrompts, kNeutral},
    {"mm_processor_kwargs", kPrompts, kNeutral},
    {"structured_outputs", kBoth, kNeutral},
    {"guided_json", kBoth, kNeutralIfNull, R"([""])"},  // {} is any JSON
    {"guided_regex", kBoth, kNeutral},
    {"guided_choice", kBoth, kNeutral},
    {"guided_grammar", kBoth, kNeutral},
    {"guided_decoding_backend", kBoth, kHarmless},
    {"guided_whitespace_pattern", kBoth, kHarmless},
    {"structural_tag", kBoth, kNeutral},
    {"repetition_detection", kBoth, kNeutral},
    {"thinking_token_budget", kBoth, kNeutral, "[-1]"},
    {"include_reasoning", kBoth, kNeutral, "[true]"},
    {"return_tokens_as_token_ids", kBoth, kNeutral, "[false]"},
    {"return_token_ids", kBoth, kNeutral, "[false]"},
    {"return_token_offsets", kBoth, kNeutral, "[false]"},
    {"return_prompt_text", kBoth, kNeutral, "[false]"},
    {"return_mm_kwargs", kBoth, kHarmless},
    {"routed_experts_prompt_start", kBoth, kHarmless},
    {"continuous_usage_stats", kStreamOptions, kNeutral, "[false]"},
    {"stream_interval", kBoth, kHarmless},
    {"priority", kBoth, kNeutral, "[0]"},
    {"request_id", kBoth, kHarmless},
    {"session_id", kBoth, kHarmless},
    {"cache_salt", kBoth, kNeutral},  // asks that others do not share its cached prompt
    {"kv_transfer_params", kBoth, kNeutral},
    {"ec_transfer_params", kBoth, kNeutral},
    {"vllm_xargs", kBoth, kNeutral},
    {"lora", kBoth, kNeutral},

    // SGLang's.
    {"json_schema", kBoth, kNeutralIfNull, R"([""])"},  // {} is any JSON
    {"regex", kBoth, kNeutral},
    {"ebnf", kBoth, kNeutral},
    {"stop_regex", kBoth, kNeutral},
    {"no_stop_trim", kBoth, kNeutral, "[false]"},
    {"lora_path", kBoth, kNeutral},
    {"session_params", kBoth, kNeutral},
    {"custom_params", kBoth, kNeutral},
    {"custom_logit_processor", kBoth, kNeutral},
    {"input_ids", kBoth, kNeutral},
    {"task", kBoth, kNeutral},
    {"return_hidden_states", kBoth, kNeutral, "[false]"},
    {"return_routed_experts", kBoth, kNeutral, "[false]"},
    {"routed_experts_start_len", kBoth, kHarmless},
    {"return_cached_tokens_details", kBoth, kNeutral, "[false]"},
    {"return_prompt_token_ids", kBoth, kNeutral, "[false]"},
    {"return_meta_info", kBoth, kNeutral, "[false]"},
    {"separate_reasoning", kBoth, kHarmless},  // no reasoning is told apart
    {"stream_reasoning", kBoth, kHarmless},
    {"extra_key", kBoth, kNeutral},
    {"ngram_corpus_id", kBoth, kNeutral},
    {"custom_labels", kBoth, kHarmless},
    {"rid", kBoth, kHarmless},
    {"routed_dp_rank", kBoth, kHarmless},
    {"data_parallel_rank", kBoth, kHarmless},
    {"bootstrap_host", kBoth, kNeutral},
    {"bootstrap_port", kBoth, kNeutral},
    {"bootstrap_room", kBoth, kNeutral},

    // llama.cpp's.
    {"n_predict", kBoth, kNeutral, "[-1]"},
    {"typical_p", kBoth, kNeutral, "[1]"},
    {"tfs_z", kBoth, kNeutral, "[1]"},
    {"top_a", kBoth, kNeutral, "[0]"},
    {"top_n_sigma", kBoth, kNeutral, "[-1,0]"},
    {"xtc_probability", kBoth, kNeutral, "[0]"},
    {"xtc_threshold", kBoth, kHarmless},  // nothing without a probability
    {"dynatemp_range", kBoth, kNeutral, "[0]"},
    {"dynatemp_exponent", kBoth, kHarmless},  // nothing without a range
    {"repeat_penalty", kBoth, kNeutral, "[1]"},
    {"repeat_last_n", kBoth, kHarmless},  // nothing without a penalty
    {"penalize_nl", kBoth, kHarmless},
    {"dry_multiplier", kBoth, kNeutral, "[0]"},
    {"dry_base", kBoth, kHarmless},  // nothing without a multiplier
    {"dry_allowed_length", kBoth, kHarmless},
    {"dry_penalty_last_n", kBoth, kHarmless},
    {"dry_sequence_breakers", kBoth, kHarmless},
    {"mirostat", kBoth, kNeutral, "[0]"},
    {"mirostat_mode", kBoth, kNeutral, "[0]"},
    {"mirostat_tau", kBoth, kHarmless},  // nothing without mirostat
    {"mirostat_eta", kBoth, kHarmless},
    {"min_keep", kBoth, kNeutral, "[0,1]"},
    {"n_keep", kBoth, kNeutral, "[0]"},
    {"n_discard", kBoth, kNeutral, "[0]"},
    {"n_indent", kBoth, kNeutral, "[0]"},
    {"n_probs", kBoth, kNeutral, "[0]"},
    {"post_sampling_probs", kBoth, kNeutral, "[false]"},
    {"samplers", kBoth, kNeutralIfNull},  // [] takes every cut away
    {"grammar", kBoth, kNeutral},
    {"grammar_lazy", kBoth, kNeutral, "[false]"},
    {"cache_prompt", kBoth, kHarmless},  // the cache changes no bit
    {"id_slot", kBoth, kHarmless},
    {"slot_id", kBoth, kHarmless},
    {"t_max_predict_ms", kBoth, kNeutral, "[0,-1]"},
    {"timings_per_token", kBoth, kNeutral, "[false]"},
    {"return_tokens", kBoth, kNeutral, "[false]"},
    {"return_progress", kBoth, kNeutral, "[false]"},
    {"response_fields", kBoth, kNeutral},
    {"image_data", kBoth, kNeutral},
    {"reasoning_format", kBoth, kNeutral, R"(["none","auto"])"},
    {"reasoning_budget", kBoth, kNeutral, "[-1]"},
    {"parse_tool_calls", kBoth, kNeutral, "[false]"},

    // Text Generation Inference's, Ollama's, and what proxies and other services pass on.
    {"do_sample", kBoth, kNeutral, "[true]"},
    {"max_new_tokens", kBoth, kNeutral},
    {"top_n_tokens", kBoth, kNeutral, "[0]"},
    {"truncate", kBoth, kNeutral},
    {"return_full_text", kBoth, kNeutral, "[false]"},
    {"watermark", kBoth, kNeutral, "[false]"},
    {"details", kBoth, kNeutral, "[false]"},
    {"decoder_input_details", kBoth, kNeutral, "[false]"},
    {"adapter_id", kBoth, kNeutral},
    {"tool_prompt", kBoth, kNeutral},
    {"guideline", kBoth, kNeutral},
    {"num_predict", kBoth, kNeutral, "[-1]"},
    {"num_ctx", kBoth, kNeutral},
    {"options", kBoth, kNeutral},
    {"format", kBoth, kNeutralIfNull, R"([""])"},  // {} is any JSON
    {"raw", kBoth, kNeutral, "[false]"},
    {"think", kBoth, kNeutral, "[false]"},
    {"keep_alive", kBoth, kHarmless},
    {"thinking", kBoth, kNeutral, R"([{"type":"disabled"}])"},
    {"enable_thinking", kBoth, kNeutral, "[false]"},
    {"safe_prompt", kBoth, kNeutral, "[false]"},
    {"random_seed", kBoth, kNeutral},
    {"transforms", kBoth, kNeutral},
    {"models", kBoth, kNeutral},
    {"plugins", kBoth, kNeutral},
    {"provider", kBoth, kHarmless},
    {"route", kBoth, kHarmless},
    {"usage", kBoth, kHarmless},      // answers always say it
    {"extra_body", kBoth, kNeutral},  // belongs into the request itself
    {"prefix", kMessage, kNeutral, "[false]"},
    {"partial", kMessage, kNeutral, "[false]"},
    {"reasoning_content", kMessage, kHarmless},  // of turns before: no template shows it
    {"reasoning", kMessage, kHarmless},
    {"cache_control", kMessage | kContentPart, kHarmless},
};

struct Known {
  const RequestField* field;
  json::array neutral;
};

const Known* Find(std::string_view name, ObjectKind kind) {
  static const auto* const known = [] {
    auto* all = new std::multimap<std::string_view, Known>;
    for (const RequestField& field : kFields) {
      all->emplace(field.name, Known{&field, json::parse(field.neutral).as_array()});
    }
    return all;
  }();
  for (auto [at, end] = known->equal_range(name); at != end; ++at) {
    if ((at->second.field->kinds & kind) != 0) return &at->second;
  }
  return nullptr;
}

std::string NearestOf(ObjectKind kind, std::string_view name) {
  std::vector<std::string> names;
  for (const RequestField& field : kFields) {
    if ((field.kinds & kind) != 0) names.emplace_back(field.name);
  }
  return std::string(config::Nearest(name, names));
}

bool Same(const json::value& a, const json::value& b) {
  if (a.is_number() && b.is_number()) return a.to_number<double>() == b.to_number<double>();
  return a == b;
}

bool IsEmpty(const json::value& value) {
  return (value.is_string() && value.get_string().empty()) ||
         (value.is_array() && value.get_array().empty()) ||
         (value.is_object() && value.get_object().empty());
}

bool MayStay(const Known& known, const json::value& value) {
  const FieldUse use = known.field->use;
  if (use == kHonoured || use == kHarmless || value.is_null()) return true;
  if (use == kNeutral && IsEmpty(value)) return true;
  for (const json::value& one : known.neutral) {
    if (Same(value, one)) return true;
  }
  return false;
}

ApiError Refused(const Known& known, const json::value& value) {
  const std::string name(known.field->name);
  std::string message =
      fmt::format("{} is not supported here; it is {}: leave it out", name, ShownValue(value));
  for (const json::value& one : known.neutral) message += " or send " + json::serialize(one);
  return {400, std::move(message), name, "unsupported_parameter"};
}

ApiError Unknown(std::string_view name, ObjectKind kind) {
  name = name.substr(0, kNameBytesShown);
  name = name.substr(0, text::ValidUtf8Prefix(name));
  return {400,
          fmt::format("unknown field {}; did you mean {}? It is refused because other servers may "
                      "act on it (the setting api.allow_unknown_fields ignores such fields)",
                      json::serialize(json::string(name)), NearestOf(kind, name)),
          std::string(name), "unknown_parameter"};
}

}  // namespace

std::span<const RequestField> RequestFields() { return kFields; }

ApiError CheckFields(const json::object& object, ObjectKind kind, std::string_view param,
                     std::vector<std::string>* unknown) {
  ApiError error;
  for (const auto& [name, value] : object) {
    if (value.is_null()) continue;  // as if it were not there
    const Known* const known = Find(name, kind);
    if (known == nullptr) {
      if (unknown == nullptr) {
        error = Unknown(name, kind);
        break;
      }
      if (unknown->size() < kUnknownNamesMax) unknown->emplace_back(name);
    } else if (!MayStay(*known, value)) {
      error = Refused(*known, value);
      break;
    }
  }
  if (!error.ok() && !param.empty()) {
    error.message = fmt::format("{}: {}", param, error.message);
    error.param = param;
  }
  return error;
}

}  // namespace engram::compute
