#include "compute/commands/report.h"

#include <fmt/format.h>

#include "common/io/json.h"

namespace engram::compute {
namespace {

double PerSecond(int64_t count, int64_t ns) {
  return ns > 0 ? static_cast<double>(count) * 1e9 / static_cast<double>(ns) : 0.0;
}

double Share(int64_t part_ns, int64_t whole_ns) {
  return whole_ns > 0 ? static_cast<double>(part_ns) / static_cast<double>(whole_ns) : 0.0;
}

// `format` of each element, comma separated.
template <typename Container, typename Format>
std::string Join(const Container& elements, const Format& format) {
  std::string out;
  for (const auto& element : elements) {
    if (!out.empty()) out += ',';
    out += format(element);
  }
  return out;
}

}  // namespace

std::string TextReport(const EngineSnapshot& figures) {
  std::string out =
      fmt::format("prefill {} tokens, {:.1f} tokens/s; decode {} tokens, {:.1f} tokens/s\n",
                  figures.prefill_tokens, PerSecond(figures.prefill_tokens, figures.prefill_ns),
                  figures.decode_tokens, PerSecond(figures.decode_tokens, figures.decode_ns));
  out += fmt::format("rows asked {}, distinct {}\n", figures.rows.rows_asked,
                     figures.rows.rows_distinct);
  if (figures.degraded_positions > 0) {
    out += fmt::format("degraded: {} positions were computed without their rows\n",
                       figures.degraded_positions);
  }
  for (const client::SourceStats::Node& node : figures.rows.nodes) {
    out += fmt::format("  node {}: {} rows, {} bytes, {} requests\n", node.name, node.rows_fetched,
                       node.bytes_fetched, node.requests);
  }
  for (const LayerWait& wait : figures.layer_waits) {
    out += fmt::format("exposed wait of layer {}: {:.1f} us in {} steps, {:.3f} % of step time\n",
                       wait.layer_id, static_cast<double>(wait.exposed_ns) * 1e-3, wait.waits,
                       100.0 * Share(wait.exposed_ns, figures.step_ns));
  }
  return out;
}

std::string JsonReport(const EngineSnapshot& figures, const Completion& completion,
                       const std::string& text) {
  const auto number = [](auto value) { return fmt::format("{}", value); };
  const auto logprob = [](float value) { return fmt::format("{:.9g}", value); };
  const auto node = [](const client::SourceStats::Node& n) {
    return fmt::format(R"({{"name":{},"rows_fetched":{},"bytes_fetched":{},"requests":{}}})",
                       json::serialize(json::string(n.name)), n.rows_fetched, n.bytes_fetched,
                       n.requests);
  };
  const auto layer = [&](const LayerWait& wait) {
    return fmt::format(
        R"({{"layer_id":{},"exposed_wait_us":{:.3f},"exposed_wait_share":{:.9g},"waits":{}}})",
        wait.layer_id, static_cast<double>(wait.exposed_ns) * 1e-3,
        Share(wait.exposed_ns, figures.step_ns), wait.waits);
  };
  return fmt::format(
      R"({{"tokens":[{}],"logprobs":[{}],"text":{},"ended_by_eos":{},"prompt_tokens":{},)"
      R"("degraded_positions":{},)"
      R"("prefill_tokens_per_s":{:.6g},"decode_tokens_per_s":{:.6g},"prefill_us":{:.3f},)"
      R"("decode_us":{:.3f},)"
      R"("rows_asked":{},"rows_distinct":{},"late_tokens":{},"nodes":[{}],"layers":[{}]}})"
      "\n",
      Join(completion.ids(), number), Join(completion.logprobs(), logprob),
      json::serialize(json::string(text)), completion.finish.reason == FinishReason::kStop,
      completion.finish.prompt_tokens, completion.finish.degraded_positions,
      PerSecond(figures.prefill_tokens, figures.prefill_ns),
      PerSecond(figures.decode_tokens, figures.decode_ns),
      static_cast<double>(figures.prefill_ns) * 1e-3, static_cast<double>(figures.decode_ns) * 1e-3,
      figures.rows.rows_asked, figures.rows.rows_distinct, figures.late_tokens,
      Join(figures.rows.nodes, node), Join(figures.layer_waits, layer));
}

}  // namespace engram::compute
