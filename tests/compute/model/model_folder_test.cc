// A model folder as others make it: what stands beside config.json is read, or named as left out;
// what contradicts it is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "compute/model/folder_files.h"
#include "compute/session/session.h"
#include "tests/compute/tiny_model.h"

namespace engram::compute {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ModelFolder : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(dir_); }
  void Make(const json::object& config, const TinyOptions& tensors) {
    std::filesystem::remove_all(dir_);
    dir_ = WriteModel(config, TinyTensors(tensors));
  }
  void Add(const char* name, std::string_view text) { std::ofstream(dir_ + "/" + name) << text; }

  std::string OpenError(const std::vector<std::string>& memnodes = {}) const {
    ComputeConfig config;
    config.model_path = dir_;
    config.lookup.memnodes = memnodes;
    const auto session = Session::Open(config);
    return session.ok() ? "" : session.status().message();
  }
  std::vector<int32_t> EosIds() const {
    const auto config = LoadModelConfig(dir_);
    CHECK(config.ok()) << config.status().message();
    return config->eos_ids;
  }

  std::string dir_;
};

TEST_F(ModelFolder, EngramTensorsWithoutAnyEngramKeyAreRefused) {
  Make(TinyConfig({.variant = ""}), {});
  EXPECT_THAT(OpenError(), HasSubstr("holds model.layers.1.engram."));
  EXPECT_THAT(OpenError(), HasSubstr("lists none as Engram layers"));
}

TEST_F(ModelFolder, AListOfEngramLayersShorterThanTheTensorsSayIsRefused) {
  json::object config = TinyConfig({});
  config["engram_layer_ids"] = json::array{1};
  Make(config, {});
  EXPECT_THAT(OpenError(), HasSubstr("holds model.layers.2.engram."));
  EXPECT_THAT(OpenError(), HasSubstr("lists [1] as Engram layers"));
}

TEST_F(ModelFolder, EngramKeysWithoutLayersAreRefused) {
  for (const json::value& layers : {json::value(nullptr), json::value(json::array())}) {
    json::object config = TinyConfig({});
    config["engram_layer_ids"] = layers;
    Make(config, {});
    EXPECT_THAT(OpenError(), HasSubstr("key 'engram_layer_ids' is " + json::serialize(layers)));
  }
  json::object config = TinyConfig({});
  config.erase("engram_layer_ids");
  Make(config, {});
  EXPECT_THAT(OpenError(), HasSubstr("key 'engram_layer_ids' is missing"));
}

TEST_F(ModelFolder, MemoryNodesForAModelWithoutEngramLayersAreRefused) {
  const TinyOptions plain{.variant = "", .streams = 1};
  Make(TinyConfig(plain), plain);
  EXPECT_EQ(OpenError(), "");
  EXPECT_THAT(OpenError({"127.0.0.1:1"}), HasSubstr("127.0.0.1:1"));
  EXPECT_THAT(OpenError({"127.0.0.1:1"}), HasSubstr("has no Engram layers"));
}

// Left out of the config, a part of a layer would be left out of the model, and its answers would
// be others.
TEST_F(ModelFolder, PartsOfLayersThatTheConfigLeavesOutAreRefused) {
  for (const bool erased : {false, true}) {
    json::object config = TinyConfig({});
    config["n_shared_experts"] = 0;
    if (erased) config.erase("n_shared_experts");
    Make(config, {});
    EXPECT_THAT(OpenError(), HasSubstr(".shared_experts."));
    EXPECT_THAT(OpenError(), HasSubstr("nothing in its config.json asks for it"));
  }
}

TEST_F(ModelFolder, LayersBeyondThoseTheConfigCountsAreRefusedUnlessTheyAreDrafts) {
  json::object config = TinyConfig({});
  const auto layers = config.at("num_hidden_layers").to_number<int64_t>();
  config["num_hidden_layers"] = layers - 1;
  Make(config, {});
  EXPECT_THAT(OpenError(), HasSubstr("holds model.layers." + std::to_string(layers - 1) + "."));
  EXPECT_THAT(OpenError(), HasSubstr("num_hidden_layers " + std::to_string(layers - 1)));
  config["num_nextn_predict_layers"] = 1;
  Make(config, {});
  EXPECT_THAT(OpenError(), HasSubstr("lacks the Engram table"))
      << "the weights are as they must be";
}

TEST_F(ModelFolder, ATiedHeadThatDiffersFromTheEmbeddingIsRefused) {
  json::object config = TinyConfig({});
  config["tie_word_embeddings"] = true;
  Make(config, {});
  EXPECT_THAT(OpenError(), HasSubstr("lm_head.weight, which differs from"));
}

TEST_F(ModelFolder, ALinkToNothingIsAFileThatIsMissing) {
  const auto error_with = [&](const std::string& name, const std::vector<std::string>& memnodes) {
    Make(TinyConfig({}), {});
    std::filesystem::remove(dir_ + "/" + name);
    std::filesystem::create_symlink("/nonexistent/blob", dir_ + "/" + name);
    return OpenError(memnodes);
  };
  for (const char* name :
       {"generation_config.json", "engram_token_map.bin", "model.safetensors.index.json"}) {
    EXPECT_THAT(error_with(name, {}), HasSubstr(name));
  }
  const char* digest = "engram_content_digest.txt";
  EXPECT_THAT(error_with(digest, {"127.0.0.1:1"}), HasSubstr(digest));
}

TEST_F(ModelFolder, EosIdsOfGenerationConfigHaveTheLastWord) {
  json::object config = TinyConfig({});
  config["eos_token_id"] = 1;
  Make(config, {});
  EXPECT_THAT(EosIds(), ElementsAre(1));
  Add("generation_config.json", R"({"eos_token_id": [3, 4], "temperature": 0.6})");
  EXPECT_THAT(EosIds(), ElementsAre(3, 4));
  Add("generation_config.json", R"({"eos_token_id": 5})");
  EXPECT_THAT(EosIds(), ElementsAre(5));
  Add("generation_config.json", R"({"eos_token_id": null})");
  EXPECT_THAT(EosIds(), ElementsAre(1));
  Add("generation_config.json", R"({"eos_token_id": [1, 97]})");
  EXPECT_THAT(LoadModelConfig(dir_).status().message(),
              HasSubstr("generation_config.json: key 'eos_token_id': [1,97]"));
  Add("generation_config.json", "{");
  EXPECT_THAT(LoadModelConfig(dir_).status().message(), HasSubstr("generation_config.json"));
  config.erase("eos_token_id");
  Make(config, {});
  EXPECT_THAT(EosIds(), ElementsAre());
  Add("generation_config.json", R"({"eos_token_id": 7})");
  EXPECT_THAT(EosIds(), ElementsAre(7)) << "where it is the only one that says it";
}

TEST_F(ModelFolder, WithoutEosIdsTheTokenizersEosTokenIsTaken) {
  json::object config = TinyConfig({});
  config.erase("eos_token_id");
  Make(config, {});
  Add("tokenizer.json", R"({"added_tokens": [{"id": 8, "content": "<a>"}, {"id": 9,
                            "content": "<end>"}]})");
  Add("tokenizer_config.json", R"({"eos_token": "<end>"})");
  EXPECT_THAT(EosIds(), ElementsAre(9));
  Add("tokenizer_config.json", R"({"eos_token": {"content": "<a>", "lstrip": false}})");
  EXPECT_THAT(EosIds(), ElementsAre(8));
  Add("tokenizer_config.json", R"({"eos_token": "<b>"})");
  EXPECT_THAT(LoadModelConfig(dir_).status().message(), HasSubstr("eos_token \"<b>\""));
  Add("tokenizer_config.json", R"({"eos_token": null})");
  Add("special_tokens_map.json", R"({"eos_token": {"content": "<end>"}})");
  EXPECT_THAT(EosIds(), ElementsAre(9));
}

TEST_F(ModelFolder, WhatIsLeftOutIsNamedWithWhatFollows) {
  Make(TinyConfig({}), {});
  EXPECT_EQ(LeftOutOfFolder(dir_, "deepseek"), "");
  Add("chat_template.jinja", "{{ messages }}");
  EXPECT_EQ(LeftOutOfFolder(dir_, "deepseek"),
            "chat_template.jinja (chat prompts are made by api.chat_template=deepseek)");
  std::filesystem::create_directory(dir_ + "/additional_chat_templates");
  EXPECT_THAT(LeftOutOfFolder(dir_, "raw"),
              HasSubstr("chat_template.jinja, additional_chat_templates ("));
  std::filesystem::remove(dir_ + "/additional_chat_templates");
  Add("tokenizer_config.json", R"({"chat_template": "x", "add_bos_token": true, "bos_token": "<s>",
      "add_eos_token": false, "clean_up_tokenization_spaces": true,
      "added_tokens_decoder": {"8": {"content": "<a>"}, "9": {"content": "<b>"}}})");
  Add("tokenizer.json", R"({"added_tokens": [{"id": 8, "content": "<a>"}], "post_processor":
      {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
       "single": [{"SpecialToken": {"id": "<begin>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
       "pair": [{"SpecialToken": {"id": "<pair>", "type_id": 0}}]}]}})");
  Add("generation_config.json", R"({"eos_token_id": 1, "do_sample": true, "temperature": 0.6})");
  const std::string line = LeftOutOfFolder(dir_, "raw");
  EXPECT_THAT(line, HasSubstr("chat_template.jinja, chat_template of tokenizer_config.json (chat "
                              "prompts are made by api.chat_template=raw)"));
  EXPECT_THAT(line, HasSubstr("post_processor of tokenizer.json, add_bos_token of "
                              "tokenizer_config.json (no <begin> or <s> is added"));
  EXPECT_THAT(line, HasSubstr("answers keep the spaces"));
  EXPECT_THAT(line, HasSubstr("1 of added_tokens_decoder of tokenizer_config.json, <b> first"));
  EXPECT_THAT(line, HasSubstr("do_sample=true, temperature=6E-1 of generation_config.json"));
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_EQ(line.find("<pair>"), std::string::npos);
  Add("tokenizer_config.json", "nothing");
  EXPECT_THAT(LeftOutOfFolder(dir_, "raw"), HasSubstr("tokenizer_config.json ("));
}

TEST_F(ModelFolder, APostProcessorThatAddsNothingIsNotNamed) {
  Make(TinyConfig({}), {});
  Add("tokenizer.json", R"({"post_processor": {"type": "ByteLevel", "trim_offsets": false}})");
  EXPECT_EQ(LeftOutOfFolder(dir_, "deepseek"), "");
}

}  // namespace
}  // namespace engram::compute
