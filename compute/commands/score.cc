#include "compute/commands/score.h"

#include <fmt/format.h>

#include <sstream>
#include <vector>

#include "common/io/json.h"
#include "compute/commands/file.h"
#include "compute/engine/run_completion.h"
#include "compute/session/session.h"

namespace engram::compute {
namespace {

Result<std::vector<int32_t>> ParseTokens(const std::string& line, const std::string& where) {
  ASSIGN_OR_RETURN(const json::value value, io::ParseJson(line, where));
  const json::object* object = value.if_object();
  const json::value* tokens = object == nullptr ? nullptr : object->if_contains("tokens");
  if (tokens == nullptr || !tokens->is_array()) {
    return InvalidArgument(where + ": an object with a list \"tokens\" is expected");
  }
  std::vector<int32_t> ids;
  for (const json::value& token : tokens->get_array()) {
    if (!token.is_int64() || token.get_int64() < 0 || token.get_int64() > INT32_MAX) {
      return InvalidArgument(fmt::format("{}: token {} is {}, not a token id", where, ids.size(),
                                         json::serialize(token)));
    }
    ids.push_back(static_cast<int32_t>(token.get_int64()));
  }
  return ids;
}

std::string FormatLine(std::span<const float> logprobs, int64_t degraded_positions) {
  std::string line = "{\"logprobs\":[null";  // nothing precedes the first token
  for (const float value : logprobs) line += fmt::format(",{:.9g}", value);
  line += "]";
  if (degraded_positions > 0) line += fmt::format(",\"degraded_positions\":{}", degraded_positions);
  return line + "}\n";
}

}  // namespace

Status RunScore(const ComputeConfig& config, const std::string& input, const std::string& output,
                parallel::Collective& ranks) {
  ASSIGN_OR_RETURN(const std::string content, ReadWholeFile(input));
  ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Open(config, ranks));
  ASSIGN_OR_RETURN(ReplacingFile out, ReplacingFile::Create(output));
  std::istringstream lines(content);
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::string where = fmt::format("{} line {}", input, ++number);
    ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ParseTokens(line, where));
    CompletionRequest request;
    request.prompt = tokens;
    request.tokens_max = 0;
    request.score_prompt = true;
    const auto scored = RunCompletion(session->completions(), std::move(request));
    if (!scored.ok()) return scored.status().WithContext(where);
    RETURN_IF_ERROR(
        out.Write(FormatLine(scored->finish.prompt_logprobs, scored->finish.degraded_positions)));
  }
  return out.Commit();
}

}  // namespace engram::compute
