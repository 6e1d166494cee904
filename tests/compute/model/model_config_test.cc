// config.json is read strictly: what would change the numbers is understood or refused.
#include "compute/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

using testing::HasSubstr;

// The error of the tiny config with one key changed.
std::string ErrorWith(const char* key, const json::value& value) {
  json::object object = TinyConfig({});
  object[key] = value;
  const auto config = ParseModelConfig(object, "config.json");
  return config.ok() ? "" : config.status().message();
}

TEST(ModelConfig, ReadsTheKeysOfDeepSeekV3) {
  json::object object = TinyConfig({});
  object["architectures"] = json::array{"EngramForCausalLM"};
  object["attention_dropout"] = 0;
  object["attention_bias"] = false;
  object["eos_token_id"] = json::array{1, 4};
  const auto config = ParseModelConfig(object, "config.json");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->hidden_size, 32);
  EXPECT_EQ(config->attention.latent, 20);
  EXPECT_EQ(config->q_lora_rank, 24);
  EXPECT_EQ(config->route.experts_per_token, 3);
  EXPECT_EQ(config->streams, 2);
  EXPECT_EQ(config->eos_ids, (std::vector<int32_t>{1, 4}));
  EXPECT_FLOAT_EQ(config->attention.scale, 1.0f / std::sqrt(12.0f));
  EXPECT_TRUE(config->IsDense(0));
  EXPECT_FALSE(config->IsDense(1));
  EXPECT_EQ(config->EngramIndex(2), 1u);
  EXPECT_EQ(config->EngramIndex(3), std::nullopt);
}

TEST(ModelConfig, YarnChangesTheScaleAndTheMagnitude) {
  TinyOptions options;
  options.yarn = true;
  const auto config = ParseModelConfig(TinyConfig(options), "config.json");
  ASSERT_TRUE(config.ok()) << config.status().message();
  const double mscale_all = 0.1 * 0.5 * std::log(4.0) + 1;
  EXPECT_NEAR(config->attention.scale, mscale_all * mscale_all / std::sqrt(12.0), 1e-7);
  EXPECT_NEAR(config->rope_magnitude, (0.1 * std::log(4.0) + 1) / mscale_all, 1e-7);
}

TEST(ModelConfig, TwoSpellingsOfOneKeyThatDisagreeAreRefused) {
  const auto rope = [](json::object scaling) { return ErrorWith("rope_scaling", scaling); };
  EXPECT_THAT(rope({{"type", "yarn"}, {"rope_type", "linear"}, {"factor", 2}}),
              HasSubstr("'type': \"yarn\" where 'rope_type', another spelling of it, says "
                        "\"linear\""));
  EXPECT_THAT(rope({{"type", "yarn"}, {"rope_type", "default"}, {"factor", 2}}),
              HasSubstr("'type': \"yarn\""));
  EXPECT_EQ(rope({{"type", "yarn"}, {"rope_type", "yarn"}, {"factor", 2}}), "");
  EXPECT_EQ(rope({{"type", nullptr}, {"rope_type", "yarn"}, {"factor", 2}}), "");
  EXPECT_THAT(rope({{"rope_type", "default"}, {"rope_theta", 5}}), HasSubstr("'rope_theta': 5 is"));
  EXPECT_EQ(rope({{"rope_type", "default"}, {"rope_theta", 10000.0}}), "");
  EXPECT_THAT(ErrorWith("num_local_experts", 4), HasSubstr("'num_local_experts': 4 where"));
  EXPECT_THAT(ErrorWith("num_experts", 4), HasSubstr("'num_experts': 4 where 'n_routed_experts'"));
  EXPECT_EQ(ErrorWith("num_experts", 8.0), "");
  EXPECT_THAT(ErrorWith("num_experts_per_token", 1), HasSubstr("'num_experts_per_token': 1"));
  EXPECT_THAT(ErrorWith("dtype", "float32"), HasSubstr("\"float32\" where 'torch_dtype'"));
  EXPECT_EQ(ErrorWith("dtype", "bfloat16"), "");
  json::object object = TinyConfig({});
  object["rope_scaling"] = json::object{{"type", "default"}};
  object["rope_parameters"] = json::object{{"type", "yarn"}, {"factor", 2}};
  EXPECT_THAT(ParseModelConfig(object, "c").status().message(), HasSubstr("'rope_parameters'"));
}

TEST(ModelConfig, AKeyMayStandInItsOtherSpellingAlone) {
  json::object object = TinyConfig({});
  object["num_local_experts"] = object.at("n_routed_experts");
  object.erase("n_routed_experts");
  object.erase("rope_theta");
  object["rope_scaling"] = nullptr;
  object["rope_parameters"] =
      json::object{{"rope_type", "yarn"}, {"rope_theta", 500.0}, {"factor", 4}};
  const auto config = ParseModelConfig(object, "config.json");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->route.experts, 8);
  EXPECT_EQ(config->rope_theta, 500.0);
  EXPECT_EQ(config->yarn->factor, 4);
}

TEST(ModelConfig, RopeScalingOfTypeDefaultIsNone) {
  for (const char* key : {"rope_type", "type"}) {
    json::object object = TinyConfig({});
    object["rope_scaling"] = json::object{{key, "default"}};
    const auto config = ParseModelConfig(object, "config.json");
    ASSERT_TRUE(config.ok()) << config.status().message();
    EXPECT_FALSE(config->yarn.has_value());
    EXPECT_EQ(config->rope_magnitude, 1);
  }
  EXPECT_THAT(
      ErrorWith("rope_scaling", json::object{{"rope_type", "default"}, {"low_freq_factor", 1}}),
      HasSubstr("'low_freq_factor': 1 is not understood"));
}

TEST(ModelConfig, AnUnknownKeyThatIsNullIsAbsent) {
  EXPECT_EQ(ErrorWith("sliding_window", nullptr), "");
  EXPECT_EQ(ErrorWith("quantization_config", nullptr), "");
  EXPECT_EQ(ErrorWith("engram_extra", nullptr), "");
}

TEST(ModelConfig, RefusesAnUnknownKeyNamingItAndItsValue) {
  EXPECT_THAT(ErrorWith("sliding_window", 4096), HasSubstr("'sliding_window': 4096"));
  EXPECT_THAT(ErrorWith("quantization_config", json::object{{"quant_method", "fp8"}}),
              HasSubstr("fp8"));
  EXPECT_THAT(
      ErrorWith("rope_scaling", json::object{{"type", "yarn"}, {"factor", 2}, {"extra", 1}}),
      HasSubstr("extra"));
}

TEST(ModelConfig, RefusesValuesItDoesNotCompute) {
  EXPECT_THAT(ErrorWith("hidden_act", "gelu"), HasSubstr("'hidden_act': \"gelu\""));
  EXPECT_THAT(ErrorWith("scoring_func", "softmax"), HasSubstr("softmax"));
  EXPECT_THAT(ErrorWith("topk_method", "greedy"), HasSubstr("greedy"));
  EXPECT_THAT(ErrorWith("attention_bias", true), HasSubstr("attention_bias"));
  EXPECT_THAT(ErrorWith("model_type", "deepseek_v3"), HasSubstr("deepseek_v3"));
  EXPECT_THAT(ErrorWith("rope_scaling", json::object{{"type", "linear"}, {"factor", 2}}),
              HasSubstr("linear"));
  EXPECT_THAT(ErrorWith("num_key_value_heads", 1), HasSubstr("num_key_value_heads"));
}

TEST(ModelConfig, RefusesSizesThatCannotBe) {
  EXPECT_THAT(ErrorWith("hidden_size", 0), HasSubstr("hidden_size"));
  EXPECT_THAT(ErrorWith("hidden_size", "large"), HasSubstr("hidden_size"));
  EXPECT_THAT(ErrorWith("qk_rope_head_dim", 5), HasSubstr("odd"));
  EXPECT_THAT(ErrorWith("n_group", 3), HasSubstr("n_group"));
  EXPECT_THAT(ErrorWith("num_experts_per_tok", 5), HasSubstr("num_experts_per_tok"));
  EXPECT_THAT(ErrorWith("engram_layer_ids", json::array{4}), HasSubstr("layer 4"));
  EXPECT_THAT(ErrorWith("eos_token_id", 97), HasSubstr("eos_token_id"));
  json::object missing = TinyConfig({});
  missing.erase("kv_lora_rank");
  EXPECT_THAT(ParseModelConfig(missing, "c").status().message(),
              HasSubstr("'kv_lora_rank': missing"));
}

// What loading says of the tiny model with its tensors changed.
Status LoadChanged(const std::function<void(std::vector<NamedTensor>&)>& change) {
  std::vector<NamedTensor> tensors = TinyTensors({});
  change(tensors);
  const std::string dir = WriteModel(TinyConfig({}), tensors);
  const auto config = LoadModelConfig(dir);
  const auto checkpoint = io::Checkpoint::Open(dir);
  std::filesystem::remove_all(dir);  // the mapping keeps the bytes
  CHECK(config.ok() && checkpoint.ok());
  return LoadWeights(*checkpoint, *config).status();
}

NamedTensor& Find(std::vector<NamedTensor>& tensors, const std::string& name) {
  for (NamedTensor& t : tensors) {
    if (t.name == name) return t;
  }
  CHECK(false) << name;
  return tensors[0];
}

TEST(Weights, AMissingTensorIsNamed) {
  const Status status = LoadChanged([](auto& tensors) {
    Find(tensors, "model.layers.2.mlp.experts.5.up_proj.weight").name = "unknown.weight";
  });
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("model.layers.2.mlp.experts.5.up_proj.weight"));
}

TEST(Weights, AWrongShapeIsNamedWithBothShapes) {
  const Status status = LoadChanged([](auto& tensors) {
    Find(tensors, "lm_head.weight").shape = {32, 97};
  });
  EXPECT_THAT(status.message(), HasSubstr("lm_head.weight"));
  EXPECT_THAT(status.message(), HasSubstr("97"));
}

TEST(Weights, AWrongDtypeIsNamed) {
  const Status status = LoadChanged([](auto& tensors) {
    NamedTensor& tensor = Find(tensors, "model.norm.weight");
    tensor.dtype = DType::kU8;
    tensor.bytes.resize(32);
  });
  EXPECT_THAT(status.message(), HasSubstr("model.norm.weight"));
  EXPECT_THAT(status.message(), HasSubstr("U8"));
}

TEST(Weights, ATensorNobodyUsesIsNoError) {
  EXPECT_TRUE(
      LoadChanged([](auto& tensors) {
        tensors.push_back(
            {"model.layers.61.eh_proj.weight", DType::kBf16, {1}, std::vector<std::byte>(2)});
      }).ok());
}

TEST(Weights, TiedEmbeddingsNeedNoHead) {
  json::object config_json = TinyConfig({});
  config_json["tie_word_embeddings"] = true;
  std::vector<NamedTensor> tensors = TinyTensors({});
  std::erase_if(tensors, [](const NamedTensor& t) { return t.name == "lm_head.weight"; });
  const std::string dir = WriteModel(config_json, tensors);
  const auto config = LoadModelConfig(dir);
  const auto checkpoint = io::Checkpoint::Open(dir);
  std::filesystem::remove_all(dir);
  ASSERT_TRUE(config.ok() && checkpoint.ok());
  const auto weights = LoadWeights(*checkpoint, *config);
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_EQ(weights->lm_head.data, weights->embedding.data);
}

}  // namespace
}  // namespace engram::compute
