#include "memnode/upkeep/verify_report.h"

#include <fmt/format.h>

#include <utility>

#include "memnode/store/manifest.h"

namespace engram::memnode {
namespace {

constexpr std::string_view kWhat = "verify report";

json::object ToJson(const Manifest& manifest, const VerifyReport& report) {
  json::array layers;
  for (const VerifyReport::Layer& layer : report.layers) {
    layers.push_back(json::object{{"layer_id", layer.layer_id},
                                  {"partitions", static_cast<int64_t>(layer.partitions)},
                                  {"pages", static_cast<int64_t>(layer.pages)},
                                  {"bad_partitions", static_cast<int64_t>(layer.bad_partitions)},
                                  {"bad_pages", static_cast<int64_t>(layer.bad_pages)}});
  }
  json::array damage;
  for (const Damage& found : report.damage) {
    json::object entry = {{"layer_id", report.layers[found.layer_index].layer_id},
                          {"partition", static_cast<int64_t>(found.partition)},
                          {"why", found.why}};
    if (found.page) entry["page"] = static_cast<int64_t>(*found.page);
    damage.push_back(std::move(entry));
  }
  return {{"model", manifest.identity.model},
          {"version", manifest.identity.version},
          {"content_digest", manifest.identity.content_digest},
          {"holds_all", report.holds_all},
          {"bytes", static_cast<int64_t>(report.bytes)},
          {"seconds", report.seconds},
          {"layers", std::move(layers)},
          {"damage", std::move(damage)}};
}

struct Sums {
  int64_t partitions = 0;
  int64_t pages = 0;
  int64_t bad_partitions = 0;
  int64_t bad_pages = 0;
  std::string bad_layers;
};

Result<const json::array*> ArrayOf(const json::object& report, std::string_view key) {
  const json::value* value = report.if_contains(key);
  if (value == nullptr || !value->is_array()) {
    return InvalidArgument(fmt::format("{}: no list \"{}\"", kWhat, key));
  }
  return &value->get_array();
}

Result<Sums> SumLayers(const json::object& report) {
  ASSIGN_OR_RETURN(const json::array* layers, ArrayOf(report, "layers"));
  Sums sums;
  for (const json::value& value : *layers) {
    if (!value.is_object()) return InvalidArgument(fmt::format("{}: a layer", kWhat));
    const json::object& layer = value.get_object();
    ASSIGN_OR_RETURN(const int64_t id, io::GetInt(layer, "layer_id", kWhat));
    ASSIGN_OR_RETURN(const int64_t partitions, io::GetInt(layer, "partitions", kWhat));
    ASSIGN_OR_RETURN(const int64_t pages, io::GetInt(layer, "pages", kWhat));
    ASSIGN_OR_RETURN(const int64_t bad_partitions, io::GetInt(layer, "bad_partitions", kWhat));
    ASSIGN_OR_RETURN(const int64_t bad_pages, io::GetInt(layer, "bad_pages", kWhat));
    sums.partitions += partitions;
    sums.pages += pages;
    sums.bad_partitions += bad_partitions;
    sums.bad_pages += bad_pages;
    if (bad_partitions == 0) continue;
    sums.bad_layers += fmt::format("  layer {}: {} of {} pages, {} of {} partitions damaged\n", id,
                                   bad_pages, pages, bad_partitions, partitions);
  }
  return sums;
}

Result<std::string> DamageLines(const json::object& report) {
  ASSIGN_OR_RETURN(const json::array* damage, ArrayOf(report, "damage"));
  std::string lines;
  for (const json::value& value : *damage) {
    if (!value.is_object()) return InvalidArgument(fmt::format("{}: damage", kWhat));
    const json::object& entry = value.get_object();
    ASSIGN_OR_RETURN(const int64_t id, io::GetInt(entry, "layer_id", kWhat));
    ASSIGN_OR_RETURN(const int64_t partition, io::GetInt(entry, "partition", kWhat));
    ASSIGN_OR_RETURN(const std::string why, io::GetString(entry, "why", kWhat));
    const auto page = io::GetInt(entry, "page", kWhat);
    lines += fmt::format("  layer {} partition {}{}: {}\n", id, partition,
                         page.ok() ? fmt::format(" page {}", *page) : "", why);
  }
  return lines;
}

}  // namespace

Result<json::object> VerifyVersion(RowStore& store, const std::string& model,
                                   const std::string& version, const VerifyOptions& options) {
  ASSIGN_OR_RETURN(auto manifest, FindManifest(store, model, version));
  if (!manifest) {
    return NotFound(fmt::format("the store has no complete {} version {}", model, version));
  }
  ASSIGN_OR_RETURN(const auto reader, TableReader::Open(store, std::move(*manifest)));
  ASSIGN_OR_RETURN(const VerifyReport report, VerifyTables(*reader, options));
  return ToJson(reader->manifest(), report);
}

Result<bool> VerifiedSound(const json::object& report) {
  ASSIGN_OR_RETURN(const Sums sums, SumLayers(report));
  return sums.bad_partitions == 0;
}

Result<std::string> VerifyText(const json::object& report) {
  ASSIGN_OR_RETURN(const std::string model, io::GetString(report, "model", kWhat));
  ASSIGN_OR_RETURN(const std::string version, io::GetString(report, "version", kWhat));
  ASSIGN_OR_RETURN(const std::string digest, io::GetString(report, "content_digest", kWhat));
  ASSIGN_OR_RETURN(const bool holds_all, io::GetBool(report, "holds_all", kWhat));
  ASSIGN_OR_RETURN(const int64_t bytes, io::GetInt(report, "bytes", kWhat));
  ASSIGN_OR_RETURN(const double seconds, io::GetDouble(report, "seconds", kWhat));
  ASSIGN_OR_RETURN(const Sums sums, SumLayers(report));
  ASSIGN_OR_RETURN(const std::string damage, DamageLines(report));
  const double mib = static_cast<double>(bytes) / (1 << 20);
  std::string result = fmt::format(
      "every page and partition is sound, {}",
      holds_all ? fmt::format("content digest {} proven", digest) : "the share that is here");
  if (sums.bad_partitions > 0) {
    result =
        fmt::format("{} pages in {} partitions are damaged", sums.bad_pages, sums.bad_partitions);
  }
  return fmt::format("{} version {}: {} partitions, {} pages, {:.1f} MiB in {:.2f} s: {}\n{}{}",
                     model, version, sums.partitions, sums.pages, mib, seconds, result,
                     sums.bad_layers, damage);
}

}  // namespace engram::memnode
