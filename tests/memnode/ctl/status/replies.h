// Replies of memory nodes to "status", made by hand.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "memnode/ctl/status/cluster_view.h"

namespace engram::ctl {

inline json::object VersionReply(const std::string& version, uint64_t generation) {
  return {{"model", "v41"},
          {"version", version},
          {"base", ""},
          {"digest", "digest-of-" + version},
          {"problem", ""},
          {"rows_held", "1000"},
          {"stored_bytes", "300000"},
          {"generation", std::to_string(generation)},
          {"prepared_generation", "0"},
          {"promised_generation", "0"},
          {"readers", "0"},
          {"published", true},
          {"prepared", false},
          {"pinned", false},
          {"rolled_back", false},
          {"loaded", true}};
}

// A node of the cluster m0, m1, m2 that serves version 1 of v41, all of it in memory.
inline json::object SoundReply(const std::string& member) {
  return {{"member", member},
          {"zone", ""},
          {"epoch", 3},
          {"members", {"m0", "m1", "m2"}},
          {"run", "run-of-" + member},
          {"state", "serving"},
          {"loading", false},
          {"why", ""},
          {"clock_ns", "5000000000"},
          {"sessions", "2"},
          {"rows_sent", "10000"},
          {"recent_lookups", "50"},
          {"recent_unreadable", "0"},
          {"service_bounds_us", {50.0, 250.0, 1000.0}},
          {"service_counts", {"10", "0", "0", "0"}},
          {"partitions", "44"},
          {"rows", "1000"},
          {"rows_in_memory", "1000"},
          {"memory_bytes", "268000"},
          {"store", json::object{{"bytes", "300000"},
                                 {"free_bytes", "7000000000"},
                                 {"age_ms", "100"},
                                 {"waiting_ms", "0"},
                                 {"problem", ""},
                                 {"full", false}}},
          {"versions", json::array{VersionReply("1", 1)}},
          {"damage", json::array()},
          {"unmended", "0"},
          {"reserved", json::array()}};
}

inline Answer AnswerOf(const json::object& reply, const std::string& address) {
  Answer answer;
  answer.address = address;
  auto parsed = ParseMemberReply(reply, address);
  CHECK(parsed.ok()) << parsed.status().message();
  answer.now = *std::move(parsed);
  return answer;
}

inline Answer NoAnswer(const std::string& address, Status error) {
  Answer answer;
  answer.address = address;
  answer.error = error.WithContext("memory node " + address);
  return answer;
}

// "host:n" for member n.
inline std::vector<Answer> AnswersOf(const std::vector<json::object>& replies) {
  std::vector<Answer> answers;
  for (size_t i = 0; i < replies.size(); ++i) {
    answers.push_back(AnswerOf(replies[i], "host:" + std::to_string(i)));
  }
  return answers;
}
inline std::vector<json::object> SoundReplies() {
  return {SoundReply("m0"), SoundReply("m1"), SoundReply("m2")};
}

}  // namespace engram::ctl
