#include "compute/model/moe.h"

#include <algorithm>

namespace engram::compute {

using kernels::Activations;
using kernels::Workspace;

int64_t FeedForwardFloatsOf(const ModelConfig& config, int64_t tokens, int64_t threads) {
  const int64_t width = config.hidden_size, chosen = config.route.experts_per_token;
  const int64_t shared = config.shared_experts * config.moe_intermediate_size;
  const int64_t inner = std::max({config.intermediate_size, config.moe_intermediate_size, shared});
  const int64_t dense = 4 * inner + 3 * width + 2 * kernels::cpu::kTileRows * threads;
  if (config.route.experts == 0) return tokens * dense;
  const int64_t routed = 2 * config.route.experts + 8 * chosen + (3 * chosen + 2) * width +
                         (chosen + 1) * (config.moe_intermediate_size + 64) + 2 * shared;
  return tokens * (dense + routed) + 64 * config.route.experts +
         8 * (chosen * tokens + 1) * (inner / kernels::cpu::kTileRows + 1);
}

void DenseBlock::Forward(const Activations& x, std::span<float> y) const {
  kernels::Pool& pool = context_.pool;
  if (weights_.gate_up != nullptr) {
    const kernels::ExpertGroup group{weights_.gate_up, weights_.down.packed, x.count()};
    return kernels::GatedExperts(pool, {&group, 1}, x.rounded(), {}, y, next_);
  }
  Workspace& memory = context_.memory();
  const Workspace::Scope scope(memory);
  const std::span<float> gate = memory.Take<float>(x.count() * weights_.gate.rows);
  const std::span<float> up = memory.Take<float>(x.count() * weights_.gate.rows);
  kernels::Linear(pool, x, weights_.gate, gate);
  kernels::Linear(pool, x, weights_.up, up);
  kernels::SwiGlu(gate, up);
  // In fp32: where the middle is rounded to bf16, `down` does it, once, as in GatedExperts.
  std::span<float> middle = gate;
  if (weights_.gate.rows < weights_.down.columns) {
    middle = memory.Take<float>(x.count() * weights_.down.columns);
    parallel::GatherColumns(context_.ranks, memory, gate, x.count(), kShardRows, middle);
  }
  GatheredLinear(context_, std::span<const float>(middle), weights_.down, x.columns(), y);
}

MoeBlock::Routes MoeBlock::Route(const Activations& x) const {
  const kernels::RouteRule& rule = context_.config.route;
  Workspace& memory = context_.memory();
  const int64_t experts = rule.experts, each = rule.experts_per_token, tokens = x.count();
  const std::span first = memory.Take<int32_t>(experts + 1);
  const std::span<int32_t> of_entries = memory.Take<int32_t>(tokens * each);
  const std::span<float> weights = memory.Take<float>(tokens * each);

  const Workspace::Scope scope(memory);
  const std::span<float> logits = memory.Take<float>(tokens * experts);
  const std::span<int32_t> chosen = memory.Take<int32_t>(tokens * each);
  const std::span<float> scales = memory.Take<float>(tokens * each);
  const std::span<float> scratch = memory.Take<float>(2 * experts);
  kernels::Linear(context_.pool, x.values(), weights_.gate, logits);
  std::fill(first.begin(), first.end(), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    const std::span<int32_t> of_token = chosen.subspan(t * each, each);
    kernels::RouteToken(rule, logits.subspan(t * experts, experts), weights_.bias, of_token,
                        scales.subspan(t * each, each), scratch);
    for (const int32_t expert : of_token) ++first[expert + 1];
  }
  for (int64_t e = 0; e < experts; ++e) first[e + 1] += first[e];
  // first[e] moves to the end of expert e's entries, then back to where they begin.
  for (int64_t i = 0; i < tokens * each; ++i) {
    const int32_t entry = first[chosen[i]]++;
    of_entries[entry] = static_cast<int32_t>(i / each);
    weights[entry] = scales[i];
  }
  std::copy_backward(first.begin(), first.end() - 1, first.end());
  first[0] = 0;
  return {first, of_entries, weights};
}

// The outputs of these experts' entries, one row each, then those of the shared expert for all
// tokens, if it is asked for.
void MoeBlock::Run(const Activations& x, const Routes& routes, parallel::Slice experts,
                   bool with_shared, std::span<float> out) const {
  Workspace& memory = context_.memory();
  const Workspace::Scope scope(memory);
  const int32_t first = routes.first[experts.first], end = routes.first[experts.end()];
  const std::span groups = memory.Take<kernels::ExpertGroup>(experts.count + 1);
  int64_t count = 0;
  bool packed = true;
  for (int64_t e = experts.first; e < experts.end(); ++e) {
    const int64_t tokens = routes.first[e + 1] - routes.first[e];
    if (tokens == 0) continue;
    const MlpWeights& expert = weights_.experts[e];
    packed = packed && expert.gate_up != nullptr;
    groups[count++] = {expert.gate_up, expert.down.packed, tokens};
  }
  if (with_shared) {
    packed = packed && weights_.shared->gate_up != nullptr;
    groups[count++] = {weights_.shared->gate_up, weights_.shared->down.packed, x.count()};
  }
  if (packed) {
    return kernels::GatedExperts(context_.pool, groups.first(count), x.rounded(),
                                 routes.tokens.subspan(first, end - first), out, next_);
  }
  // fp32 experts, or some of each: one after the other, a packed one with the same bits as above.
  const ModelContext alone{context_.config, context_.pool, parallel::Solo()};
  for (int64_t e = experts.first; e < experts.end(); ++e) {
    const int64_t tokens = routes.first[e + 1] - routes.first[e];
    if (tokens == 0) continue;
    const Workspace::Scope of_expert(memory);
    Activations gathered(memory, tokens, x.columns());
    for (int64_t i = 0; i < tokens; ++i) {
      const int64_t token = routes.tokens[routes.first[e] + i];
      std::copy_n(x.values().data() + token * x.columns(), x.columns(), gathered.row(i).data());
      gathered.RowIsComplete(i);
    }
    DenseBlock(alone, weights_.experts[e]).Forward(gathered, out.first(tokens * x.columns()));
    out = out.subspan(tokens * x.columns());
  }
  if (with_shared) DenseBlock(alone, *weights_.shared).Forward(x, out);
}

// Of all experts: this rank's are computed here, the others' come from their ranks. Then the shared
// one's.
void MoeBlock::RunOwn(const Activations& x, const Routes& routes, std::span<float> out) const {
  parallel::Collective& ranks = context_.ranks;
  const int64_t experts = std::ssize(weights_.experts);
  if (ranks.size() == 1) {
    return Run(x, routes, {0, experts}, weights_.shared.has_value(), out);
  }
  Workspace& memory = context_.memory();
  const Workspace::Scope scope(memory);
  const auto entries = [&](int64_t expert) { return routes.first[expert] * x.columns(); };
  const std::span<int64_t> blocks = memory.Take<int64_t>(ranks.size());
  for (int r = 0; r < ranks.size(); ++r) {
    const parallel::Slice slice = parallel::SliceOf(experts, r, ranks.size());
    blocks[r] = entries(slice.end()) - entries(slice.first);
  }
  const parallel::Slice own = parallel::SliceOf(experts, ranks);
  Run(x, routes, own, false, out.subspan(entries(own.first), blocks[ranks.rank()]));
  ranks.AllGather(out.first(entries(experts)), blocks);
  if (weights_.shared) {
    DenseBlock(context_, *weights_.shared).Forward(x, out.subspan(entries(experts)));
  }
}

void MoeBlock::Forward(const Activations& x, const StepContext& step, std::span<float> y) const {
  Workspace& memory = context_.memory();
  const Workspace::Scope scope(memory);
  const int64_t width = x.columns();
  const Routes routes = Route(x);
  if (step.load != nullptr) {
    const std::span<int64_t> counts = step.load->Of(layer_);
    for (int64_t e = 0; e < std::ssize(counts); ++e) {
      counts[e] += routes.first[e + 1] - routes.first[e];
    }
  }
  const int64_t entries = std::ssize(routes.tokens);
  const int64_t shared_rows = weights_.shared ? x.count() : 0;
  const std::span<float> out = memory.Take<float>((entries + shared_rows) * width);
  RunOwn(x, routes, out);
  // Below this many sums a second thread costs more than it saves.
  constexpr int64_t kSumGrain = 65536;
  const int64_t grain = std::max<int64_t>(64, kSumGrain / (entries + 1) / 64 * 64);
  context_.pool.Run(width, grain, [&](int64_t begin, int64_t end) {
    const auto row_of = [&](auto values, int64_t row) {
      return values.subspan(row * width + begin, end - begin);
    };
    for (int64_t t = 0; t < x.count(); ++t) {
      const std::span<float> sum = row_of(y, t);
      std::fill(sum.begin(), sum.end(), 0.0f);
    }
    for (int64_t i = 0; i < entries; ++i) {
      kernels::AddScaled(row_of(y, routes.tokens[i]), routes.weights[i], row_of(out, i));
    }
    for (int64_t t = 0; t < shared_rows; ++t) {
      kernels::Add(row_of(y, t), row_of(out, entries + t));
    }
  });
}

}  // namespace engram::compute
