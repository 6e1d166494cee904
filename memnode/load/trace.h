// Recorded steps as JSON lines. The first line says what follows:
//   {"engram_trace": 1, "kind": "tokens", "sequences": S, "tokens": T}
// then one line a step. By kind:
//   tokens      {"tokens": [S*T compressed ids]}, sequence after sequence
//   raw_tokens  the same with the tokenizer's ids, for a model with a token map
//   rows        {"rows": [[S*T*H row ids] per layer]}
// Tokens are hashed when a trace is replayed, each sequence with its own history, so a trace of
// tokens fits any tables with that vocabulary.
#pragma once

#include <fstream>
#include <memory>
#include <string>

#include "memnode/load/step_makers.h"

namespace engram::memnode::load {

inline constexpr size_t kTraceStepsMax = 10'000'000;
inline constexpr uint64_t kTraceIdsMax = uint64_t{256} << 20;  // of all steps together

// Reads the whole trace; after the last step comes the first again, with the histories it has then.
// `shape` becomes the trace's. INVALID_ARGUMENT and OUT_OF_RANGE name the line.
Result<std::unique_ptr<StepMaker>> OpenTrace(const std::string& path, const LoadTables& tables,
                                             StepShape* shape);

class TraceWriter {
 public:
  // Writes the first line; of kind tokens or rows.
  static Result<TraceWriter> Create(const std::string& path, const StepShape& shape, bool tokens);
  void Write(std::span<const int64_t> tokens);
  void Write(StepRows layers);
  Status Close();  // an error of any write

 private:
  TraceWriter(std::string path, std::ofstream out) : path_(std::move(path)), out_(std::move(out)) {}
  std::string path_;
  std::ofstream out_;
};

}  // namespace engram::memnode::load
