#include "common/table/engram_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "common/config/nearest.h"

namespace engram::table {
namespace {

constexpr std::string_view kPrefix = "engram_";
constexpr const char* kOwnModelType = "engram_v3";  // the engine's
constexpr std::string_view kLayerIds = "engram_layer_ids";
constexpr std::string_view kPleLayerIds = "ple_layer_ids";
constexpr std::array<std::string_view, 13> kKeys = {
    "engram_layer_ids",      "engram_num_embeddings",
    "engram_max_ngram_size", "engram_vocab_size",
    "engram_n_heads",        "engram_head_dim",
    "engram_pad_token_id",   "engram_pad_id",
    "engram_seed",           "engram_compressed_vocab_size",
    "engram_variant",        "engram_conv_kernel",
    "engram_norm_eps",
};

Status Wrong(std::string_view key, const json::value& value, std::string_view expected) {
  constexpr size_t kShownMax = 80;
  std::string shown = json::serialize(value);
  if (shown.size() > kShownMax) shown = shown.substr(0, kShownMax) + "...";
  return InvalidArgument(fmt::format("key '{}': {} is not {}", key, shown, expected));
}

Status Missing(std::string_view key) {
  return InvalidArgument(
      fmt::format("key '{}' is missing: a config with engram_layer_ids needs it", key));
}

Status CheckKeysKnown(const json::object& object) {
  for (const auto& member : object) {
    const std::string_view key = member.key();
    if (!key.starts_with(kPrefix) || member.value().is_null() ||
        std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end())
      continue;
    const std::vector<std::string> known(kKeys.begin(), kKeys.end());
    return InvalidArgument(fmt::format(
        "key '{}' is not understood (nearest known: '{}'); ignoring it could change every address",
        key, config::Nearest(key, known)));
  }
  return OkStatus();
}

// The engram_* members of a config, wherever they stand.
class Keys {
 public:
  static Result<Keys> Collect(const json::object& config) {
    Keys keys;
    keys.top_ = &config;
    RETURN_IF_ERROR(CheckKeysKnown(config));
    const json::value* text = config.if_contains("text_config");
    if (text == nullptr || !text->is_object()) return keys;
    keys.text_ = &text->get_object();
    RETURN_IF_ERROR(CheckKeysKnown(*keys.text_));
    RETURN_IF_ERROR(keys.CheckSame(kPleLayerIds));
    for (const std::string_view key : kKeys) RETURN_IF_ERROR(keys.CheckSame(key));
    return keys;
  }

  // The engram_* key that stands first here; empty when there is none but the layers'.
  std::string_view FirstBesideLayers() const {
    for (const std::string_view key : kKeys) {
      if (key != kLayerIds && Find(key) != nullptr) return key;
    }
    return {};
  }

  // "missing", or the value that says nothing.
  std::string Spelled(std::string_view key) const {
    for (const json::object* object : {top_, text_}) {
      const json::value* value = object == nullptr ? nullptr : object->if_contains(key);
      if (value != nullptr) return json::serialize(*value);
    }
    return "missing";
  }

  // Null when the key is absent.
  const json::value* Find(std::string_view key) const {
    const json::value* top = Get(top_, key);
    return top != nullptr ? top : Get(text_, key);
  }

  // Leaves `out` alone when the key is absent.
  template <typename T>
  Status Read(std::string_view key, int64_t min, int64_t max, T& out) const {
    const json::value* value = Find(key);
    return value == nullptr ? OkStatus() : ReadInteger(key, *value, min, max, out);
  }
  template <typename T>
  Status Require(std::string_view key, int64_t min, int64_t max, T& out) const {
    const json::value* value = Find(key);
    return value == nullptr ? Missing(key) : ReadInteger(key, *value, min, max, out);
  }

  template <typename T>
  static Status ReadInteger(std::string_view key, const json::value& value, int64_t min,
                            int64_t max, T& out) {
    if (!value.is_int64() || value.get_int64() < min || value.get_int64() > max) {
      return Wrong(key, value, fmt::format("an integer from {} to {}", min, max));
    }
    out = static_cast<T>(value.get_int64());
    return OkStatus();
  }

 private:
  Status CheckSame(std::string_view key) const {
    const json::value* top = Get(top_, key);
    const json::value* nested = Get(text_, key);
    if (top == nullptr || nested == nullptr || *top == *nested) return OkStatus();
    return Wrong(key, *top, fmt::format("what text_config says ({})", json::serialize(*nested)));
  }

  static const json::value* Get(const json::object* object, std::string_view key) {
    const json::value* value = object == nullptr ? nullptr : object->if_contains(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  const json::object* top_ = nullptr;
  const json::object* text_ = nullptr;
};

Status ReadLayerIds(const Keys& keys, EngramConfig& config) {
  constexpr std::string_view kKey = kLayerIds;
  const json::value* value = keys.Find(kKey);
  if (value == nullptr) return OkStatus();
  if (!value->is_array() || value->get_array().size() > kEngramLayersMax) {
    return Wrong(kKey, *value, fmt::format("a list of at most {} layers", kEngramLayersMax));
  }
  for (const json::value& item : value->get_array()) {
    int layer_id = 0;
    RETURN_IF_ERROR(Keys::ReadInteger(kKey, item, 0, kLayerIdMax, layer_id));
    const std::vector<int>& known = config.layer_ids;
    if (std::find(known.begin(), known.end(), layer_id) != known.end()) {
      return Wrong(kKey, *value,
                   fmt::format("a list of different layers ({} is there twice)", layer_id));
    }
    config.layer_ids.push_back(layer_id);
  }
  return OkStatus();
}

// Their ids count from 1.
Status ReadPleLayerIds(const Keys& keys, EngramConfig& config) {
  constexpr std::string_view kKey = kPleLayerIds;
  const json::value* value = keys.Find(kKey);
  if (value == nullptr) return OkStatus();
  if (!value->is_array() || value->get_array().size() > kEngramLayersMax) {
    return Wrong(kKey, *value, fmt::format("a list of at most {} layers", kEngramLayersMax));
  }
  if (!config.layer_ids.empty() && !value->get_array().empty()) {
    return Wrong(kKey, *value, fmt::format("possible beside {}: a model has one kind", kLayerIds));
  }
  config.ple = !value->get_array().empty();
  for (const json::value& item : value->get_array()) {
    int layer_id = 0;
    RETURN_IF_ERROR(Keys::ReadInteger(kKey, item, 1, kLayerIdMax, layer_id));
    if (!config.layer_ids.empty() && layer_id - 1 <= config.layer_ids.back()) {
      return Wrong(kKey, *value, "ascending layers");
    }
    config.layer_ids.push_back(layer_id - 1);
  }
  return OkStatus();
}

Status ReadVocabSizes(const Keys& keys, EngramConfig& config) {
  constexpr std::string_view kKey = "engram_vocab_size";
  constexpr auto kMax = static_cast<int64_t>(kRequestedVocabMax);
  const auto orders = static_cast<size_t>(config.order_count());
  const json::value* value = keys.Find(kKey);
  if (value == nullptr) return Missing(kKey);
  if (!value->is_array()) {
    uint64_t size = 0;
    RETURN_IF_ERROR(Keys::ReadInteger(kKey, *value, 1, kMax, size));
    config.requested_vocab_sizes.assign(orders, size);
    return OkStatus();
  }
  if (value->get_array().size() != orders) {
    return Wrong(kKey, *value,
                 fmt::format("one number, or {} (one per order 2..{} of engram_max_ngram_size)",
                             orders, config.max_ngram_size));
  }
  for (const json::value& item : value->get_array()) {
    uint64_t size = 0;
    RETURN_IF_ERROR(Keys::ReadInteger(kKey, item, 1, kMax, size));
    config.requested_vocab_sizes.push_back(size);
  }
  return OkStatus();
}

Status ReadDeclaredRows(const Keys& keys, EngramConfig& config) {
  constexpr std::string_view kKey = "engram_num_embeddings";
  const json::value* value = keys.Find(kKey);
  if (value == nullptr) return OkStatus();
  config.declared_rows_per_layer = value->is_array();
  if (!value->is_array()) {
    return Keys::ReadInteger(kKey, *value, 1, INT64_MAX, config.declared_rows.emplace_back());
  }
  if (value->get_array().size() != config.layer_ids.size()) {
    return Wrong(kKey, *value,
                 fmt::format("one number per Engram layer ({})", config.layer_ids.size()));
  }
  for (const json::value& item : value->get_array()) {
    RETURN_IF_ERROR(
        Keys::ReadInteger(kKey, item, 1, INT64_MAX, config.declared_rows.emplace_back()));
  }
  return OkStatus();
}

// A config that has Engram keys means to have Engram layers.
Status CheckLayersNamed(const Keys& keys) {
  const std::string_view other = keys.FirstBesideLayers();
  if (other.empty()) return OkStatus();
  return InvalidArgument(
      fmt::format("key '{}' is {}, but '{}' is there: the model would be run without its Engram "
                  "layers; list them (0-based), or take every engram_* key out",
                  kLayerIds, keys.Spelled(kLayerIds), other));
}

// Both spellings are in use; given together they must agree.
Status ReadPad(const Keys& keys, EngramConfig& config) {
  if (keys.Find("engram_pad_id") == nullptr && keys.Find("engram_pad_token_id") == nullptr) {
    return Missing("engram_pad_token_id");  // it stands before every sequence
  }
  RETURN_IF_ERROR(keys.Read("engram_pad_id", 0, INT32_MAX, config.pad_id));
  int64_t token_id = config.pad_id;
  RETURN_IF_ERROR(keys.Read("engram_pad_token_id", 0, INT32_MAX, token_id));
  if (keys.Find("engram_pad_id") != nullptr && token_id != config.pad_id) {
    return InvalidArgument(fmt::format("key 'engram_pad_token_id': {} is not engram_pad_id, {}",
                                       token_id, config.pad_id));
  }
  config.pad_id = token_id;
  return OkStatus();
}

// Every multiplier is drawn from it. Configs of other makers lack it: theirs is 0.
Status ReadSeed(const Keys& keys, const json::object& object, EngramConfig& config) {
  constexpr std::string_view kKey = "engram_seed";
  const json::value* model_type = object.if_contains("model_type");
  if (model_type != nullptr && *model_type == kOwnModelType && keys.Find(kKey) == nullptr) {
    return Missing(kKey);
  }
  return keys.Read(kKey, 0, INT64_MAX, config.seed);
}

Status ReadFusion(const Keys& keys, EngramConfig& config) {
  if (const json::value* variant = keys.Find("engram_variant"); variant != nullptr) {
    const std::string_view name =
        variant->is_string() ? std::string_view(variant->get_string()) : std::string_view();
    if (name == VariantName(Variant::kPaper)) {
      config.variant = Variant::kPaper;
    } else if (name == VariantName(Variant::kV41)) {
      config.variant = Variant::kV41;
    } else {
      return Wrong("engram_variant", *variant, "\"paper\" or \"v41\"");
    }
  }
  RETURN_IF_ERROR(keys.Read("engram_conv_kernel", 1, 64, config.conv_kernel));
  if (const json::value* eps = keys.Find("engram_norm_eps"); eps != nullptr) {
    if (eps->is_number()) config.norm_eps = eps->to_number<double>();
    if (!eps->is_number() || !(config.norm_eps >= 0) || config.norm_eps > 1) {
      return Wrong("engram_norm_eps", *eps, "a number from 0 to 1");
    }
  }
  return OkStatus();
}

}  // namespace

std::string_view VariantName(Variant variant) {
  switch (variant) {
    case Variant::kPaper:
      return "paper";
    case Variant::kV41:
      return "v41";
  }
  return "?";
}

Result<EngramConfig> ParseEngramConfig(const json::object& object) {
  ASSIGN_OR_RETURN(const Keys keys, Keys::Collect(object));
  EngramConfig config;
  RETURN_IF_ERROR(ReadLayerIds(keys, config));
  RETURN_IF_ERROR(ReadPleLayerIds(keys, config));
  if (config.layer_ids.empty()) RETURN_IF_ERROR(CheckLayersNamed(keys));
  if (config.layer_ids.empty() || config.ple) return config;
  RETURN_IF_ERROR(
      keys.Require("engram_max_ngram_size", 2, kMaxNgramSizeMax, config.max_ngram_size));
  RETURN_IF_ERROR(keys.Require("engram_n_heads", 1, kHeadsMax, config.heads_per_order));
  RETURN_IF_ERROR(keys.Require("engram_head_dim", 1, kHeadDimMax, config.head_dim));
  RETURN_IF_ERROR(ReadVocabSizes(keys, config));
  RETURN_IF_ERROR(ReadDeclaredRows(keys, config));
  RETURN_IF_ERROR(ReadPad(keys, config));
  RETURN_IF_ERROR(ReadSeed(keys, object, config));
  RETURN_IF_ERROR(keys.Read("engram_compressed_vocab_size", 1,
                            static_cast<int64_t>(kCompressedVocabMax),
                            config.compressed_vocab_size));
  RETURN_IF_ERROR(ReadFusion(keys, config));
  return config;
}

Result<EngramConfig> LoadEngramConfig(const std::string& config_json_path) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJsonFile(config_json_path));
  if (!value.is_object()) {
    return InvalidArgument(fmt::format("{}: a JSON object is expected", config_json_path));
  }
  Result<EngramConfig> config = ParseEngramConfig(value.get_object());
  if (!config.ok()) return config.status().WithContext(config_json_path);
  return config;
}

}  // namespace engram::table
