#include "tests/compute/model/reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numbers>

namespace engram::compute {
namespace {

using Vec = std::vector<double>;

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double Silu(double x) { return x * Sigmoid(x); }

Vec Slice(const Vec& v, size_t first, size_t count) {
  return Vec(v.begin() + static_cast<ptrdiff_t>(first),
             v.begin() + static_cast<ptrdiff_t>(first + count));
}

double Dot(const Vec& a, const Vec& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

Vec Norm(const Vec& x, const Vec& weight, double eps) {
  const double scale = 1.0 / std::sqrt(Dot(x, x) / static_cast<double>(x.size()) + eps);
  Vec y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * weight[i];
  return y;
}

class Reference {
 public:
  Reference(const json::object& config, const std::vector<NamedTensor>& tensors,
            const EmbeddingOf& embedding)
      : config_(config), embedding_(embedding) {
    for (const NamedTensor& tensor : tensors) weights_[tensor.name] = Decode(tensor);
    dim_ = Number("hidden_size");
    streams_ = Number("hc_mult");
    eps_ = config.at("rms_norm_eps").to_number<double>();
  }

  // Final normed hidden states.
  std::vector<Vec> Hidden(std::span<const int32_t> tokens) {
    std::vector<std::vector<Vec>> x;  // [T][G][D]
    for (const int32_t token : tokens) {
      x.emplace_back(
          streams_, Slice(W("model.embed_tokens.weight"), static_cast<size_t>(token) * dim_, dim_));
    }
    for (size_t i = 0; i < Number("num_hidden_layers"); ++i) {
      const std::string p = fmt::format("model.layers.{}.", i);
      if (config_.contains("engram_layer_ids")) Engram(p, i, x);
      Sublayer(p + "attn_hc.", p + "input_layernorm.weight", x,
               [&](const std::vector<Vec>& u) { return Attention(p + "self_attn.", u); });
      Sublayer(p + "mlp_hc.", p + "post_attention_layernorm.weight", x,
               [&](const std::vector<Vec>& u) {
                 std::vector<Vec> y;
                 for (const Vec& v : u)
                   y.push_back(i == 0 ? Mlp(p + "mlp.", v) : Moe(p + "mlp.", v));
                 return y;
               });
    }
    std::vector<Vec> hidden;
    for (const std::vector<Vec>& token : x) {
      Vec sum(dim_, 0.0);
      for (const Vec& stream : token) {
        for (size_t d = 0; d < dim_; ++d) sum[d] += stream[d];
      }
      hidden.push_back(Norm(sum, W("model.norm.weight"), eps_));
    }
    return hidden;
  }

  Vec Linear(const std::string& name, const Vec& x) {
    const Vec& w = W(name);
    Vec y(w.size() / x.size(), 0.0);
    for (size_t o = 0; o < y.size(); ++o) {
      for (size_t c = 0; c < x.size(); ++c) y[o] += w[o * x.size() + c] * x[c];
    }
    return y;
  }

 private:
  static Vec Decode(const NamedTensor& tensor) {
    Vec values(tensor.bytes.size() / SizeOf(tensor.dtype));
    for (size_t i = 0; i < values.size(); ++i) {
      if (tensor.dtype == DType::kF32) {
        float value;
        std::memcpy(&value, tensor.bytes.data() + 4 * i, 4);
        values[i] = static_cast<double>(value);
      } else {
        Bf16 value;
        std::memcpy(&value, tensor.bytes.data() + 2 * i, 2);
        values[i] = static_cast<double>(ToFloat(value));
      }
    }
    return values;
  }
  const Vec& W(const std::string& name) {
    CHECK(weights_.contains(name)) << name;
    return weights_[name];
  }
  size_t Number(const char* key) const { return config_.at(key).to_number<size_t>(); }

  template <typename F>
  void Sublayer(const std::string& hyper, const std::string& norm, std::vector<std::vector<Vec>>& x,
                const F& f) {
    const size_t g = streams_;
    std::vector<Vec> u, post, residual;
    for (const std::vector<Vec>& token : x) {
      Vec pre(g, 1.0);
      post.emplace_back(g, 1.0);
      residual.emplace_back(g * g, 1.0);
      if (g > 1) Mix(hyper, token, pre, post.back(), residual.back());
      Vec collapsed(dim_, 0.0);
      for (size_t s = 0; s < g; ++s) {
        for (size_t d = 0; d < dim_; ++d) collapsed[d] += pre[s] * token[s][d];
      }
      u.push_back(Norm(collapsed, W(norm), eps_));
    }
    const std::vector<Vec> y = f(u);
    for (size_t t = 0; t < x.size(); ++t) {
      const std::vector<Vec> before = x[t];
      for (size_t s = 0; s < g; ++s) {
        for (size_t d = 0; d < dim_; ++d) {
          double value = post[t][s] * y[t][d];
          for (size_t j = 0; j < g; ++j) value += residual[t][s * g + j] * before[j][d];
          x[t][s][d] = value;
        }
      }
    }
  }

  void Mix(const std::string& p, const std::vector<Vec>& token, Vec& pre, Vec& post,
           Vec& residual) {
    Vec flat;
    for (const Vec& stream : token) flat.insert(flat.end(), stream.begin(), stream.end());
    const Vec z = Norm(flat, W(p + "norm.weight"), eps_);
    const Vec a = Linear(p + "phi_pre.weight", z), b = Linear(p + "phi_post.weight", z);
    const Vec c = Linear(p + "phi_res.weight", z);
    const size_t g = streams_;
    for (size_t s = 0; s < g; ++s) {
      pre[s] = Sigmoid(W(p + "alpha_pre")[0] * a[s] + W(p + "b_pre")[s]);
      post[s] = 2 * Sigmoid(W(p + "alpha_post")[0] * b[s] + W(p + "b_post")[s]);
    }
    for (size_t i = 0; i < g * g; ++i)
      residual[i] = std::exp(W(p + "alpha_res")[0] * c[i] + W(p + "b_res")[i]);
    for (size_t round = 0; round < Number("hc_sinkhorn_iters"); ++round) {
      for (size_t r = 0; r < g; ++r) Normalize(residual, r * g, 1);
      for (size_t col = 0; col < g; ++col) Normalize(residual, col, g);
    }
  }

  void Normalize(Vec& m, size_t first, size_t step) const {
    double sum = 0;
    for (size_t i = 0; i < streams_; ++i) sum += m[first + i * step];
    for (size_t i = 0; i < streams_; ++i) m[first + i * step] /= sum;
  }

  // Rotation of one rope part; YaRN as in DeepSeek-V3 when the config asks for it.
  Vec Rotate(Vec x, size_t position) const {
    const auto dim = static_cast<double>(x.size());
    const double theta = config_.at("rope_theta").to_number<double>();
    const json::object* yarn =
        config_.contains("rope_scaling") ? config_.at("rope_scaling").if_object() : nullptr;
    for (size_t i = 0; i < x.size() / 2; ++i) {
      double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / dim);
      double magnitude = 1;
      if (yarn != nullptr) {
        const double factor = yarn->at("factor").to_number<double>();
        const auto index = [&](double turns) {
          return dim *
                 std::log(yarn->at("original_max_position_embeddings").to_number<double>() /
                          (turns * 2 * std::numbers::pi)) /
                 (2 * std::log(theta));
        };
        const double low = std::max(std::floor(index(32)), 0.0);
        const double high = std::min(std::ceil(index(1)), dim - 1);
        const double ramp = std::clamp(
            (static_cast<double>(i) - low) / (high - low + (high == low ? 1e-3 : 0)), 0.0, 1.0);
        frequency = frequency / factor * ramp + frequency * (1 - ramp);
        magnitude = (0.1 * std::log(factor) + 1) / (0.1 * 0.5 * std::log(factor) + 1);
      }
      const double angle = static_cast<double>(position) * frequency;
      const double a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = magnitude * (a * std::cos(angle) - b * std::sin(angle));
      x[2 * i + 1] = magnitude * (a * std::sin(angle) + b * std::cos(angle));
    }
    return x;
  }

  std::vector<Vec> Attention(const std::string& p, const std::vector<Vec>& u) {
    const size_t heads = Number("num_attention_heads"), nope = Number("qk_nope_head_dim");
    const size_t rope = Number("qk_rope_head_dim"), value = Number("v_head_dim"),
                 latent = Number("kv_lora_rank");
    double scale = 1.0 / std::sqrt(static_cast<double>(nope + rope));
    if (config_.contains("rope_scaling")) scale *= std::pow(0.1 * 0.5 * std::log(4.0) + 1, 2);
    std::vector<Vec> keys, values, out;  // [T][heads * (nope + rope)], [T][heads * value]
    for (size_t t = 0; t < u.size(); ++t) {
      const Vec kv = Linear(p + "kv_a_proj_with_mqa.weight", u[t]);
      const Vec shared = Rotate(Slice(kv, latent, rope), t);
      const Vec up = Linear(p + "kv_b_proj.weight",
                            Norm(Slice(kv, 0, latent), W(p + "kv_a_layernorm.weight"), eps_));
      Vec key, val;
      for (size_t h = 0; h < heads; ++h) {
        for (size_t i = 0; i < nope; ++i) key.push_back(up[h * (nope + value) + i]);
        key.insert(key.end(), shared.begin(), shared.end());
        for (size_t i = 0; i < value; ++i) val.push_back(up[h * (nope + value) + nope + i]);
      }
      keys.push_back(key);
      values.push_back(val);
      const Vec q = weights_.contains(p + "q_proj.weight")
                        ? Linear(p + "q_proj.weight", u[t])
                        : Linear(p + "q_b_proj.weight", Norm(Linear(p + "q_a_proj.weight", u[t]),
                                                             W(p + "q_a_layernorm.weight"), eps_));
      Vec attended;
      for (size_t h = 0; h < heads; ++h) {
        Vec query = Slice(q, h * (nope + rope), nope);
        const Vec rotated = Rotate(Slice(q, h * (nope + rope) + nope, rope), t);
        query.insert(query.end(), rotated.begin(), rotated.end());
        Vec sum(value, 0.0);
        double total = 0;
        for (size_t j = 0; j <= t; ++j) {
          const double weight =
              std::exp(scale * Dot(query, Slice(keys[j], h * (nope + rope), nope + rope)));
          total += weight;
          for (size_t i = 0; i < value; ++i) sum[i] += weight * values[j][h * value + i];
        }
        for (const double s : sum) attended.push_back(s / total);
      }
      out.push_back(Linear(p + "o_proj.weight", attended));
    }
    return out;
  }

  Vec Mlp(const std::string& p, const Vec& x) {
    Vec gate = Linear(p + "gate_proj.weight", x);
    const Vec up = Linear(p + "up_proj.weight", x);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = Silu(gate[i]) * up[i];
    return Linear(p + "down_proj.weight", gate);
  }

  Vec Moe(const std::string& p, const Vec& x) {
    Vec score = Linear(p + "gate.weight", x);
    std::vector<std::pair<double, size_t>> order;
    for (size_t e = 0; e < score.size(); ++e) {
      score[e] = Sigmoid(score[e]);
      order.emplace_back(-(score[e] + W(p + "gate.e_score_correction_bias")[e]), e);
    }
    // Two groups, one kept: the one whose best two choices add up to more.
    const size_t half = order.size() / 2;
    const auto worth = [&](size_t g) {
      Vec members;
      for (size_t e = g * half; e < (g + 1) * half; ++e) members.push_back(-order[e].first);
      std::sort(members.rbegin(), members.rend());
      return members[0] + members[1];
    };
    const size_t kept = worth(1) > worth(0) ? 1 : 0;
    std::sort(order.begin() + static_cast<ptrdiff_t>(kept * half),
              order.begin() + static_cast<ptrdiff_t>((kept + 1) * half));
    Vec out = Mlp(p + "shared_experts.", x);
    double sum = 1e-20;
    const size_t k = Number("num_experts_per_tok");
    for (size_t i = 0; i < k; ++i) sum += score[order[kept * half + i].second];
    for (size_t i = 0; i < k; ++i) {
      const size_t e = order[kept * half + i].second;
      const Vec y = Mlp(fmt::format("{}experts.{}.", p, e), x);
      const double weight =
          score[e] / sum * config_.at("routed_scaling_factor").to_number<double>();
      for (size_t d = 0; d < dim_; ++d) out[d] += weight * y[d];
    }
    return out;
  }

  void Engram(const std::string& layer, size_t index, std::vector<std::vector<Vec>>& x) {
    const json::array& ids = config_.at("engram_layer_ids").as_array();
    const auto at = std::find(ids.begin(), ids.end(), json::value(index));
    if (at == ids.end()) return;
    const auto layer_index = static_cast<uint32_t>(at - ids.begin());
    const std::string p = layer + "engram.";
    if (config_.at("engram_variant") == "v41") return EngramV41(p, layer_index, x);
    std::vector<std::vector<Vec>> u, normed;
    for (size_t t = 0; t < x.size(); ++t) {
      const Vec e = embedding_(layer_index, t);
      const Vec v = Biased(p + "value_proj", e);
      u.emplace_back();
      normed.emplace_back();
      for (size_t g = 0; g < streams_; ++g) {
        const Vec key = Norm(Biased(fmt::format("{}key_proj.{}", p, g), e),
                             W(fmt::format("{}key_norm.{}.weight", p, g)), std::exp2(-23));
        const Vec query =
            Norm(x[t][g], W(fmt::format("{}query_norm.{}.weight", p, g)), std::exp2(-23));
        const double s = Dot(key, query) / std::sqrt(static_cast<double>(dim_));
        const double root = std::sqrt(std::max(std::fabs(s), 1e-6));
        const double gate = Sigmoid(s < 0 ? -root : root);
        Vec gated = v;
        for (double& value : gated) value *= gate;
        normed.back().push_back(Norm(gated, W(fmt::format("{}conv_norm.{}.weight", p, g)), 1e-5));
        u.back().push_back(std::move(gated));
      }
    }
    const size_t lag = Number("engram_max_ngram_size");
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t g = 0; g < streams_; ++g) {
        for (size_t d = 0; d < dim_; ++d) {
          double sum = 0;
          for (size_t back = 0; back < 4 && back * lag <= t; ++back) {
            sum +=
                W(p + "conv.weight")[(g * dim_ + d) * 4 + 3 - back] * normed[t - back * lag][g][d];
          }
          x[t][g][d] += u[t][g][d] + Silu(sum);
        }
      }
    }
  }

  Vec Biased(const std::string& name, const Vec& x) {
    Vec y = Linear(name + ".weight", x);
    if (weights_.contains(name + ".bias")) {
      for (size_t i = 0; i < y.size(); ++i) y[i] += W(name + ".bias")[i];
    }
    return y;
  }

  void EngramV41(const std::string& p, uint32_t layer_index, std::vector<std::vector<Vec>>& x) {
    for (size_t t = 0; t < x.size(); ++t) {
      const Vec kv = Linear(p + "wkv.weight", embedding_(layer_index, t));
      const Vec value = Slice(kv, streams_ * dim_, dim_);
      for (size_t g = 0; g < streams_; ++g) {
        const Vec key = Slice(kv, g * dim_, dim_);
        Vec& h = x[t][g];
        double dot = 0;
        for (size_t d = 0; d < dim_; ++d) {
          dot += h[d] * W(p + "q_weight")[g * dim_ + d] * W(p + "k_weight")[g * dim_ + d] * key[d];
        }
        const auto n = static_cast<double>(dim_);
        dot /=
            std::sqrt(Dot(h, h) / n + 1e-20) * std::sqrt(Dot(key, key) / n + 1e-20) * std::sqrt(n);
        const double gate = Sigmoid(std::copysign(std::sqrt(std::max(std::fabs(dot), 1e-6)), dot));
        for (size_t d = 0; d < dim_; ++d) h[d] += gate * value[d];
      }
    }
  }

  const json::object& config_;
  const EmbeddingOf& embedding_;
  std::map<std::string, Vec> weights_;
  size_t dim_ = 0, streams_ = 0;
  double eps_ = 0;
};

}  // namespace

std::vector<double> ReferenceScore(const json::object& config,
                                   const std::vector<NamedTensor>& tensors,
                                   std::span<const int32_t> tokens, const EmbeddingOf& embedding) {
  Reference reference(config, tensors, embedding);
  const std::vector<Vec> hidden = reference.Hidden(tokens);
  std::vector<double> scores;
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    const Vec logits = reference.Linear("lm_head.weight", hidden[t]);
    double sum = 0;
    for (const double l : logits) sum += std::exp(l);
    scores.push_back(logits[static_cast<size_t>(tokens[t + 1])] - std::log(sum));
  }
  return scores;
}

}  // namespace engram::compute
