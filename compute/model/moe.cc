#include "compute/model/moe.h"

#include <algorithm>
#include <numeric>

namespace engram::compute {
namespace {

struct Assignment {
  size_t token = 0;
  float weight = 0;
};

// Per expert the tokens that chose it, in token order.
std::vector<std::vector<Assignment>> Route(kernels::Pool& pool, const ModelConfig& config,
                                           const MoeWeights& weights,
                                           const kernels::Activations& x) {
  const auto tokens = static_cast<size_t>(x.count());
  const size_t experts = weights.experts.size();
  std::vector<float> logits(tokens * experts);
  kernels::Linear(pool, x.values(), weights.gate, logits);
  std::vector<std::vector<Assignment>> assigned(experts);
  std::vector<int32_t> chosen(static_cast<size_t>(config.route.experts_per_token));
  std::vector<float> scales(chosen.size());
  for (size_t t = 0; t < tokens; ++t) {
    kernels::RouteToken(config.route, {logits.data() + t * experts, experts}, weights.bias, chosen,
                        scales);
    for (size_t k = 0; k < chosen.size(); ++k) {
      assigned[static_cast<size_t>(chosen[k])].push_back({t, scales[k]});
    }
  }
  return assigned;
}

}  // namespace

std::vector<float> DenseForward(kernels::Pool& pool, parallel::Collective& ranks,
                                const MlpWeights& weights, const kernels::Activations& x) {
  const auto tokens = static_cast<size_t>(x.count());
  std::vector<float> out(tokens * static_cast<size_t>(weights.down.rows));
  if (weights.gate_up != nullptr) {
    const kernels::ExpertGroup group{weights.gate_up, weights.down.packed, x.count()};
    kernels::GatedExperts(pool, {&group, 1}, x.rounded(), {}, out);
    return out;
  }
  std::vector<float> gate(tokens * static_cast<size_t>(weights.gate.rows));
  std::vector<float> up(gate.size());
  kernels::Linear(pool, x, weights.gate, gate);
  kernels::Linear(pool, x, weights.up, up);
  kernels::SwiGlu(gate, up);
  // In fp32: where the middle is rounded to bf16, `down` does it, once, as in GatedExperts.
  gate =
      parallel::GatherColumns(ranks, std::move(gate), x.count(), weights.down.columns, kShardRows);
  kernels::Linear(pool, gate, weights.down, out);
  return parallel::GatherColumns(ranks, std::move(out), x.count(), weights.gate.columns,
                                 kShardRows);
}

namespace {

// The outputs of experts [first_expert, first_expert + assigned.size()), one row for each
// assignment, expert after expert; rows[i] is the i-th one's token.
std::vector<float> RunExperts(kernels::Pool& pool, const MoeWeights& weights, size_t first_expert,
                              std::span<const std::vector<Assignment>> assigned,
                              const kernels::Activations& x, std::span<const int32_t> rows) {
  const auto width = static_cast<size_t>(x.columns());
  std::vector<float> out(rows.size() * width);
  std::vector<kernels::ExpertGroup> groups;
  bool packed = true;
  for (size_t e = 0; e < assigned.size(); ++e) {
    if (assigned[e].empty()) continue;
    const MlpWeights& expert = weights.experts[first_expert + e];
    packed = packed && expert.gate_up != nullptr;
    groups.push_back(
        {expert.gate_up, expert.down.packed, static_cast<int64_t>(assigned[e].size())});
  }
  if (packed) {
    kernels::GatedExperts(pool, groups, x.rounded(), rows, out);
    return out;
  }
  // fp32 experts, or some of each: one after the other, a packed one with the same bits as above.
  float* to = out.data();
  kernels::Activations gathered;
  for (size_t e = 0; e < assigned.size(); ++e) {
    const auto count = static_cast<int64_t>(assigned[e].size());
    if (count == 0) continue;
    gathered.Resize(count, x.columns());
    for (int64_t i = 0; i < count; ++i) {
      const size_t token = assigned[e][static_cast<size_t>(i)].token;
      std::copy_n(x.values().data() + token * width, width, gathered.row(i).data());
      gathered.RowIsComplete(i);
    }
    const std::vector<float> y =
        DenseForward(pool, parallel::Solo(), weights.experts[first_expert + e], gathered);
    to = std::copy(y.begin(), y.end(), to);
  }
  return out;
}

// Of all experts: this rank's are computed here, the others' come from their ranks.
std::vector<float> RunOwnExperts(kernels::Pool& pool, parallel::Collective& ranks,
                                 const MoeWeights& weights,
                                 const std::vector<std::vector<Assignment>>& assigned,
                                 const kernels::Activations& x, std::span<const int32_t> rows) {
  if (ranks.size() == 1) return RunExperts(pool, weights, 0, assigned, x, rows);
  const auto width = static_cast<size_t>(x.columns());
  const auto experts = static_cast<int64_t>(assigned.size());
  std::vector<int64_t> blocks;  // floats of each rank's assignments
  for (int r = 0; r < ranks.size(); ++r) {
    const parallel::Slice slice = parallel::SliceOf(experts, r, ranks.size());
    size_t entries = 0;
    for (int64_t e = slice.first; e < slice.end(); ++e) {
      entries += assigned[static_cast<size_t>(e)].size();
    }
    blocks.push_back(static_cast<int64_t>(entries * width));
  }
  const auto rank = static_cast<size_t>(ranks.rank());
  const auto before = static_cast<size_t>(
      std::accumulate(blocks.begin(), blocks.begin() + ranks.rank(), int64_t{0}));
  const parallel::Slice own = parallel::SliceOf(experts, ranks);
  const auto first = static_cast<size_t>(own.first);
  const std::vector<float> mine = RunExperts(
      pool, weights, first, std::span(assigned).subspan(first, static_cast<size_t>(own.count)), x,
      rows.subspan(before / width, static_cast<size_t>(blocks[rank]) / width));
  std::vector<float> all(rows.size() * width);
  std::copy(mine.begin(), mine.end(), all.begin() + static_cast<ptrdiff_t>(before));
  ranks.AllGather(all, blocks);
  return all;
}

}  // namespace

std::vector<float> MoeForward(kernels::Pool& pool, parallel::Collective& ranks,
                              const ModelConfig& config, const MoeWeights& weights,
                              const kernels::Activations& x, std::span<int64_t> expert_tokens) {
  const auto width = static_cast<size_t>(config.hidden_size);
  const std::vector<std::vector<Assignment>> assigned = Route(pool, config, weights, x);
  for (size_t e = 0; e < expert_tokens.size(); ++e) {
    expert_tokens[e] += static_cast<int64_t>(assigned[e].size());
  }
  std::vector<int32_t> rows;  // the token of each assignment
  for (const std::vector<Assignment>& expert : assigned) {
    for (const Assignment& one : expert) rows.push_back(static_cast<int32_t>(one.token));
  }
  const std::vector<float> y = RunOwnExperts(pool, ranks, weights, assigned, x, rows);
  std::vector<float> out(x.values().size(), 0.0f);
  size_t row = 0;
  for (const std::vector<Assignment>& expert : assigned) {
    for (const Assignment& assignment : expert) {
      kernels::AddScaled({out.data() + assignment.token * width, width}, assignment.weight,
                         {y.data() + row++ * width, width});
    }
  }
  if (weights.shared) kernels::Add(out, DenseForward(pool, ranks, *weights.shared, x));
  return out;
}

}  // namespace engram::compute
