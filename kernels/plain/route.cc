// Expert choice of DeepSeek-V3: sigmoid scores, a bias that only steers the choice, optional
// groups.
#include <algorithm>
#include <cmath>
#include <functional>

#include "common/base/check.h"
#include "kernels/exp.h"
#include "kernels/ops.h"

namespace engram::kernels {
namespace {

// Index of the largest value not yet -infinity; ties to the lower index.
size_t TakeLargest(std::span<float> values) {
  const size_t index = static_cast<size_t>(ArgMax(values));
  values[index] = -INFINITY;
  return index;
}

// Sets the choices of all but the `kept` worthiest groups to -infinity; a group's worth is its best
// two choices.
void DropGroups(const RouteRule& rule, std::span<float> choices) {
  const size_t size = choices.size() / static_cast<size_t>(rule.groups);
  std::vector<float> worth;
  for (size_t first = 0; first < choices.size(); first += size) {
    std::vector<float> group(choices.begin() + static_cast<ptrdiff_t>(first),
                             choices.begin() + static_cast<ptrdiff_t>(first + size));
    std::partial_sort(group.begin(), group.begin() + 2, group.end(), std::greater<>());
    worth.push_back(group[0] + group[1]);
  }
  std::vector<uint8_t> kept(worth.size(), 0);
  for (int i = 0; i < rule.groups_kept; ++i) kept[TakeLargest(worth)] = 1;
  for (size_t e = 0; e < choices.size(); ++e) {
    if (kept[e / size] == 0) choices[e] = -INFINITY;
  }
}

}  // namespace

void RouteToken(const RouteRule& rule, std::span<const float> logits, std::span<const float> bias,
                std::span<int32_t> chosen, std::span<float> weights) {
  CHECK_EQ(static_cast<int>(logits.size()), rule.experts);
  CHECK_EQ(bias.size(), logits.size());
  std::vector<float> scores(logits.size());
  std::vector<float> choices(logits.size());
  for (size_t e = 0; e < logits.size(); ++e) {
    scores[e] = Sigmoid(logits[e]);
    choices[e] = scores[e] + bias[e];
  }
  if (rule.groups > 1) DropGroups(rule, choices);
  float sum = 0;
  for (size_t k = 0; k < chosen.size(); ++k) {
    const size_t expert = TakeLargest(choices);
    chosen[k] = static_cast<int32_t>(expert);
    weights[k] = scores[expert];
    sum += weights[k];
  }
  const float scale = rule.normalize ? rule.scaling / (sum + 1e-20f) : rule.scaling;
  for (float& weight : weights) weight *= scale;
}

}  // namespace engram::kernels
