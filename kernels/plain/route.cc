// Expert choice of DeepSeek-V3: sigmoid scores, a bias that only steers the choice, optional
// groups.
#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "kernels/exp.h"
#include "kernels/ops.h"

namespace engram::kernels {
namespace {

// Index of the largest value not yet -infinity, which it becomes; ties to the lower index.
int64_t TakeLargest(std::span<float> values) {
  const int64_t index = ArgMax(values);
  values[index] = -INFINITY;
  return index;
}

// Sets the choices of all but the `kept` worthiest groups to -infinity; a group's worth is its best
// two choices.
void DropGroups(const RouteRule& rule, std::span<float> choices, std::span<float> worth) {
  const int64_t size = std::ssize(choices) / rule.groups;
  for (int64_t g = 0; g < rule.groups; ++g) {
    float best = -INFINITY, second = -INFINITY;
    for (const float choice : choices.subspan(g * size, size)) {
      second = std::max(second, std::min(best, choice));
      best = std::max(best, choice);
    }
    worth[g] = best + second;
  }
  for (int i = 0; i < rule.groups_kept; ++i) TakeLargest(worth);
  for (int64_t e = 0; e < std::ssize(choices); ++e) {
    if (worth[e / size] != -INFINITY) choices[e] = -INFINITY;
  }
}

}  // namespace

void RouteToken(const RouteRule& rule, std::span<const float> logits, std::span<const float> bias,
                std::span<int32_t> chosen, std::span<float> weights, std::span<float> scratch) {
  const int64_t experts = rule.experts;
  CHECK(std::ssize(logits) == experts && std::ssize(bias) == experts);
  CHECK_GE(std::ssize(scratch), 2 * experts);
  const std::span<float> choices = scratch.first(experts);
  for (int64_t e = 0; e < experts; ++e) choices[e] = Sigmoid(logits[e]) + bias[e];
  if (rule.groups > 1) DropGroups(rule, choices, scratch.subspan(experts, rule.groups));
  float sum = 0;
  for (int64_t k = 0; k < std::ssize(chosen); ++k) {
    chosen[k] = static_cast<int32_t>(TakeLargest(choices));
    weights[k] = Sigmoid(logits[chosen[k]]);
    sum += weights[k];
  }
  const float scale = rule.normalize ? rule.scaling / (sum + 1e-20f) : rule.scaling;
  for (float& weight : weights) weight *= scale;
}

}  // namespace engram::kernels
