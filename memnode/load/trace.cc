#include "memnode/load/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/io/json.h"

namespace engram::memnode::load {
namespace {

class RowTrace : public StepMaker {
 public:
  // steps[i]: the layers one after the other.
  explicit RowTrace(std::vector<std::vector<uint64_t>> steps) : steps_(std::move(steps)) {}
  Status Fill(StepRows layers) override {
    auto from = steps_[next_].begin();
    for (const std::span<uint64_t> rows : layers) {
      std::copy_n(from, rows.size(), rows.begin());
      from += static_cast<std::ptrdiff_t>(rows.size());
    }
    next_ = (next_ + 1) % steps_.size();
    return OkStatus();
  }
  size_t cycle() const override { return steps_.size(); }

 private:
  const std::vector<std::vector<uint64_t>> steps_;
  size_t next_ = 0;
};

// A walk over tokens of which the number of steps is known.
class TokenTrace : public StepMaker {
 public:
  TokenTrace(std::unique_ptr<StepMaker> walk, size_t steps)
      : walk_(std::move(walk)), steps_(steps) {}
  Status Fill(StepRows layers) override { return walk_->Fill(layers); }
  std::span<const int64_t> tokens() const override { return walk_->tokens(); }
  size_t cycle() const override { return steps_; }

 private:
  const std::unique_ptr<StepMaker> walk_;
  const size_t steps_;
};

enum class Kind : uint8_t { kTokens, kRawTokens, kRows };

class Reader {
 public:
  Reader(std::string path, const LoadTables& tables)
      : path_(std::move(path)), tables_(tables), in_(path_) {}

  Result<std::unique_ptr<StepMaker>> Read(StepShape* shape) {
    if (!in_) return NotFound(fmt::format("trace {}: {}", path_, std::strerror(errno)));
    RETURN_IF_ERROR(ReadHeader());
    while (true) {
      ASSIGN_OR_RETURN(const bool more, ReadStep());
      if (!more) break;
    }
    if (steps_ == 0) return InvalidArgument(fmt::format("trace {} holds no step", path_));
    *shape = shape_;
    if (kind_ == Kind::kRows) return Made(std::make_unique<RowTrace>(std::move(rows_)));
    return Made(
        std::make_unique<TokenTrace>(MakeTokenSteps(tables_.layout, shape_, BySequence()), steps_));
  }

 private:
  static Result<std::unique_ptr<StepMaker>> Made(std::unique_ptr<StepMaker> maker) { return maker; }

  Result<bool> NextLine(json::value* value) {
    std::string text;
    do {
      if (!std::getline(in_, text)) return false;
      ++line_;
    } while (text.empty());
    ASSIGN_OR_RETURN(*value, io::ParseJson(text, Where()));
    if (!value->is_object()) return InvalidArgument(Where() + " is no JSON object");
    return true;
  }

  Status ReadHeader() {
    json::value value;
    ASSIGN_OR_RETURN(const bool some, NextLine(&value));
    if (!some || !value.get_object().contains("engram_trace")) {
      return InvalidArgument(
          fmt::format("{} is no trace: its first line needs engram_trace", path_));
    }
    const json::object& header = value.get_object();
    ASSIGN_OR_RETURN(const int64_t version, io::GetInt(header, "engram_trace", Where()));
    ASSIGN_OR_RETURN(const std::string kind, io::GetString(header, "kind", Where()));
    ASSIGN_OR_RETURN(shape_.sequences, io::GetInt(header, "sequences", Where()));
    ASSIGN_OR_RETURN(shape_.tokens, io::GetInt(header, "tokens", Where()));
    if (version != 1)
      return InvalidArgument(fmt::format("{}: version {}, not 1", Where(), version));
    constexpr auto kMax = static_cast<int64_t>(kPositionsMax);
    if (shape_.sequences < 1 || shape_.tokens < 1 || shape_.sequences > kMax ||
        shape_.tokens > kMax / shape_.sequences) {
      return InvalidArgument(fmt::format("{}: {} sequences of {} tokens, at most {} together",
                                         Where(), shape_.sequences, shape_.tokens, kPositionsMax));
    }
    if (kind == "tokens")
      kind_ = Kind::kTokens;
    else if (kind == "raw_tokens")
      kind_ = Kind::kRawTokens;
    else if (kind == "rows")
      kind_ = Kind::kRows;
    else
      return InvalidArgument(
          fmt::format("{}: kind \"{}\", not tokens, raw_tokens or rows", Where(), kind));
    if (kind_ == Kind::kRawTokens && !tables_.map.has_value()) {
      return InvalidArgument(Where() + ": raw_tokens need a model's token map: give --model");
    }
    return OkStatus();
  }

  Result<bool> ReadStep() {
    json::value value;
    ASSIGN_OR_RETURN(const bool more, NextLine(&value));
    if (!more) return false;
    if (++steps_ > kTraceStepsMax) {
      return ResourceExhausted(fmt::format("{}: more than {} steps", Where(), kTraceStepsMax));
    }
    const json::object& step = value.get_object();
    RETURN_IF_ERROR(kind_ == Kind::kRows ? ReadRows(step) : ReadTokens(step));
    return true;
  }

  Result<const json::array*> List(const json::value* value, size_t size, const char* what) {
    const json::array* list = value == nullptr ? nullptr : value->if_array();
    if (list == nullptr || list->size() != size) {
      return InvalidArgument(fmt::format("{}: expected {} {}", Where(), size, what));
    }
    ids_ += size;
    if (ids_ > kTraceIdsMax) {
      return ResourceExhausted(fmt::format("{}: more than {} ids", Where(), kTraceIdsMax));
    }
    return list;
  }

  Result<int64_t> Id(const json::value& value, uint64_t limit, const char* what) {
    const int64_t* id = value.if_int64();
    if (id == nullptr || *id < 0 || static_cast<uint64_t>(*id) >= limit) {
      return OutOfRange(fmt::format("{}: {} {}, must be an integer below {}", Where(), what,
                                    json::serialize(value), limit));
    }
    return *id;
  }

  Status ReadTokens(const json::object& step) {
    ASSIGN_OR_RETURN(const json::array* list,
                     List(step.if_contains("tokens"), shape_.positions(), "tokens"));
    for (const json::value& value : *list) {
      const bool raw = kind_ == Kind::kRawTokens;
      ASSIGN_OR_RETURN(
          int64_t id,
          Id(value, raw ? tables_.map->raw_size() : tables_.layout.compressed_vocab_size, "token"));
      if (raw) {
        ASSIGN_OR_RETURN(id, tables_.map->Compress(id));
      }
      tokens_.push_back(id);
    }
    return OkStatus();
  }

  Status ReadRows(const json::object& step) {
    const table::TableLayout& layout = tables_.layout;
    ASSIGN_OR_RETURN(const json::array* layers,
                     List(step.if_contains("rows"), layout.layers.size(), "layers"));
    const size_t count = shape_.positions() * static_cast<size_t>(layout.rows_per_position());
    std::vector<uint64_t>& all = rows_.emplace_back();
    for (size_t i = 0; i < layers->size(); ++i) {
      ASSIGN_OR_RETURN(const json::array* list, List(&layers->at(i), count, "rows of a layer"));
      for (const json::value& value : *list) {
        ASSIGN_OR_RETURN(const int64_t id, Id(value, layout.layers[i].total_rows, "row"));
        all.push_back(static_cast<uint64_t>(id));
      }
    }
    return OkStatus();
  }

  // [steps][sequences][tokens] to [sequences][steps][tokens]: MakeTokenSteps spreads the sequences
  // evenly, so each begins at its own first token.
  std::vector<int64_t> BySequence() const {
    std::vector<int64_t> sorted;
    sorted.reserve(tokens_.size());
    const auto count = static_cast<size_t>(shape_.tokens);
    const auto sequences = static_cast<size_t>(shape_.sequences);
    for (size_t s = 0; s < sequences; ++s) {
      for (size_t step = 0; step < steps_; ++step) {
        const auto from =
            tokens_.begin() + static_cast<std::ptrdiff_t>((step * sequences + s) * count);
        sorted.insert(sorted.end(), from, from + static_cast<std::ptrdiff_t>(count));
      }
    }
    return sorted;
  }

  std::string Where() const { return fmt::format("trace {} line {}", path_, line_); }

  const std::string path_;
  const LoadTables& tables_;
  std::ifstream in_;
  size_t line_ = 0;
  Kind kind_ = Kind::kTokens;
  StepShape shape_;
  size_t steps_ = 0;
  uint64_t ids_ = 0;
  std::vector<int64_t> tokens_;
  std::vector<std::vector<uint64_t>> rows_;
};

}  // namespace

Result<std::unique_ptr<StepMaker>> OpenTrace(const std::string& path, const LoadTables& tables,
                                             StepShape* shape) {
  return Reader(path, tables).Read(shape);
}

Result<TraceWriter> TraceWriter::Create(const std::string& path, const StepShape& shape,
                                        bool tokens) {
  std::ofstream out(path);
  out << fmt::format(
      "{{\"engram_trace\": 1, \"kind\": \"{}\", \"sequences\": {}, \"tokens\": {}}}\n",
      tokens ? "tokens" : "rows", shape.sequences, shape.tokens);
  if (!out) return InternalError(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
  return TraceWriter(path, std::move(out));
}

void TraceWriter::Write(std::span<const int64_t> tokens) {
  out_ << fmt::format("{{\"tokens\": [{}]}}\n", fmt::join(tokens, ","));
}

void TraceWriter::Write(StepRows layers) {
  out_ << "{\"rows\": [";
  for (size_t i = 0; i < layers.size(); ++i) {
    out_ << fmt::format("{}[{}]", i == 0 ? "" : ",", fmt::join(layers[i], ","));
  }
  out_ << "]}\n";
}

Status TraceWriter::Close() {
  if (out_.flush()) return OkStatus();
  return InternalError(fmt::format("cannot write {}: {}", path_, std::strerror(errno)));
}

}  // namespace engram::memnode::load
