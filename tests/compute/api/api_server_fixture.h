// An API server over an engine that does what the test says, and a client of it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "compute/api/api_server.h"
#include "tests/common/net/raw_socket.h"
#include "tests/compute/api/fake_engine.h"
#include "tests/compute/api/tiny_tokenizer.h"

namespace engram::compute {

class ApiServerFixture : public testing::Test {
 protected:
  // `worker` null: the server's own.
  void Start(ApiOptions options, std::unique_ptr<Worker> worker = nullptr) {
    server_.reset();
    options.limits.body_bytes = 100'000;
    ApiModel model;
    model.name = model_name_;
    model.tokenizer = &tokenizer_;
    model.vocab_size = tokenizer_.vocab_size();
    model.positions_max = engine_.positions_max();
    model.prompts_max = 4;
    auto started = worker == nullptr ? ApiServer::Start(options, model, engine_)
                                     : ApiServer::Start(options, model, engine_, std::move(worker));
    CHECK(started.ok()) << started.status().message();
    server_ = std::move(*started);
  }
  static std::string RequestText(const std::string& method, const std::string& path,
                                 const std::string& body, const std::string& headers = "") {
    return method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  // The whole answer to one request.
  std::string Ask(const std::string& method, const std::string& path, const std::string& body = "",
                  const std::string& headers = "") {
    net::RawSocket socket(server_->port());
    socket.Send(RequestText(method, path, body, headers));
    return socket.Read();
  }
  std::string Complete(const std::string& body) { return Ask("POST", "/v1/completions", body); }
  std::string Chat(const std::string& body) { return Ask("POST", "/v1/chat/completions", body); }
  static json::object JsonOf(const std::string& answer) {
    auto value = io::ParseJson(answer.substr(answer.find("\r\n\r\n") + 4), "answer");
    return value.ok() && value->is_object() ? value->get_object() : json::object();
  }
  std::vector<int32_t> Ids(std::string_view text) { return *tokenizer_.Encode(text); }

  const text::Tokenizer tokenizer_ = TinyTokenizer();
  std::string model_name_ = "tiny";
  FakeEngine engine_;
  std::unique_ptr<ApiServer> server_;
};

}  // namespace engram::compute
