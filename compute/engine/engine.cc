#include "compute/engine/engine.h"

#include <fmt/format.h>

#include <algorithm>

#include "compute/engine/sampler.h"

namespace engram::compute {
namespace {

// Rows of logits held at once while scoring: 64 x 129,280 x 4 B = 33 MB.
constexpr size_t kLogitRowsMax = 64;

Status CheckFinite(std::span<const float> logits) {
  if (kernels::AllFinite(logits)) return OkStatus();
  return InternalError(
      "a logit is not a finite number: the weights or the Engram rows hold NaN or infinity");
}

}  // namespace

struct Engine::Sequence {
  static Result<Sequence> Start(uint64_t id, const ModelConfig& config, int64_t positions) {
    const PageShape shape = PageShapeOf(config, 16);
    ASSIGN_OR_RETURN(PagePool pool, PagePool::Make(shape, (positions + 15) / 16));
    Sequence sequence{id, SequenceState(shape), {}, std::move(pool)};
    for (int32_t page = 0; page < sequence.pages.pages(); ++page) {
      sequence.state.pages.push_back(page);
    }
    return sequence;
  }
  uint64_t id;
  SequenceState state;
  table::NgramState history;  // of the tokens before the next step
  PagePool pages;
};

Engine::Engine(const ModelConfig& config, const Transformer& transformer, Prefetcher& prefetcher,
               int64_t prefill_chunk, const Clock& clock)
    : config_(config),
      transformer_(transformer),
      prefetcher_(prefetcher),
      prefill_chunk_(prefill_chunk),
      clock_(clock) {
  CHECK_GT(prefill_chunk, 0);
}

Status Engine::CheckTokens(std::span<const int32_t> tokens, int64_t more) const {
  if (tokens.empty()) return InvalidArgument("the list of tokens is empty; at least one is needed");
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= config_.vocab_size) {
      return OutOfRange(fmt::format("token {} at index {} is outside the vocabulary of {}",
                                    tokens[i], i, config_.vocab_size));
    }
  }
  const int64_t positions = static_cast<int64_t>(tokens.size()) + more;
  if (positions > config_.positions_max) {
    return InvalidArgument(fmt::format("{} tokens and {} more exceed max_position_embeddings {}",
                                       tokens.size(), more, config_.positions_max));
  }
  return OkStatus();
}

Result<std::vector<float>> Engine::Compute(const TokenRun& step, Sequence& sequence) {
  StepRows rows = prefetcher_.Take({&step, 1});
  const Segment segment{step.tokens, &sequence.state};
  std::vector<float> hidden = transformer_.Forward({&segment, 1}, rows, sequence.pages);
  const Status status = rows.status(0);
  prefetcher_.EndStep(std::move(rows));
  if (!status.ok()) return status;
  return hidden;
}

Status Engine::Prefill(std::span<const int32_t> tokens, Sequence& sequence, const ChunkDone& done) {
  const TimePoint start = clock_.Now();
  const auto chunk = static_cast<size_t>(prefill_chunk_);
  TokenRun step{sequence.id, 0, tokens.first(std::min(chunk, tokens.size())), sequence.history};
  RETURN_IF_ERROR(prefetcher_.Submit({&step, 1}, client::Priority::kDecode));
  int64_t outside_ns = 0;  // spent in `done`, which is not prefill
  while (!step.tokens.empty()) {
    RETURN_IF_ERROR(prefetcher_.Advance(step.tokens, sequence.history));
    const size_t next = static_cast<size_t>(step.first_position) + step.tokens.size();
    const TokenRun following{sequence.id, static_cast<int64_t>(next),
                             tokens.subspan(next, std::min(chunk, tokens.size() - next)),
                             sequence.history};
    if (!following.tokens.empty()) {
      RETURN_IF_ERROR(prefetcher_.Submit({&following, 1}, client::Priority::kPrefill));
    }
    ASSIGN_OR_RETURN(const std::vector<float> hidden, Compute(step, sequence));
    const TimePoint computed = clock_.Now();
    RETURN_IF_ERROR(done(step.first_position, hidden));
    outside_ns += Nanos(clock_.Now() - computed).count();
    step = following;
  }
  stats_.prefill_tokens += static_cast<int64_t>(tokens.size());
  stats_.prefill_ns += Nanos(clock_.Now() - start).count() - outside_ns;
  return OkStatus();
}

bool Engine::IsEos(int32_t token) const {
  return std::find(config_.eos_ids.begin(), config_.eos_ids.end(), token) != config_.eos_ids.end();
}

Status Engine::Decode(const GenerateRequest& request, std::vector<float> hidden, Sequence& sequence,
                      Generation& out) {
  const TimePoint start = clock_.Now();
  Sampler sampler(request.temperature, request.seed);
  std::vector<float> logits(static_cast<size_t>(config_.vocab_size));
  while (true) {
    transformer_.Logits(hidden, logits);
    RETURN_IF_ERROR(CheckFinite(logits));
    const int32_t token = sampler.Sample(logits);
    out.tokens.push_back(token);
    const bool last = static_cast<int64_t>(out.tokens.size()) == request.tokens_max;
    out.ended_by_eos = !request.ignore_eos && IsEos(token);
    const TokenRun step{
        sequence.id, sequence.state.length, {&out.tokens.back(), 1}, sequence.history};
    if (!last && !out.ended_by_eos)
      RETURN_IF_ERROR(prefetcher_.Submit({&step, 1}, client::Priority::kDecode));
    out.logprobs.push_back(static_cast<float>(kernels::LogProbability(logits, token)));
    if (last || out.ended_by_eos) break;
    RETURN_IF_ERROR(prefetcher_.Advance(step.tokens, sequence.history));
    ASSIGN_OR_RETURN(hidden, Compute(step, sequence));
    ++stats_.decode_tokens;
  }
  stats_.decode_ns += Nanos(clock_.Now() - start).count();
  return OkStatus();
}

Result<Generation> Engine::Generate(const GenerateRequest& request) {
  if (request.tokens_max < 1) return InvalidArgument("at least one token must be asked for");
  if (!(request.temperature >= 0)) return InvalidArgument("the temperature must not be negative");
  RETURN_IF_ERROR(CheckTokens(request.prompt, request.tokens_max));
  const int64_t positions = static_cast<int64_t>(request.prompt.size()) + request.tokens_max;
  ASSIGN_OR_RETURN(Sequence sequence, Sequence::Start(next_sequence_++, config_, positions));
  Generation out;
  std::vector<float> last;  // hidden state of the prompt's last token
  const auto keep_last = [&](int64_t, std::span<const float> hidden) {
    const auto tail = hidden.last(static_cast<size_t>(config_.hidden_size));
    last.assign(tail.begin(), tail.end());
    return OkStatus();
  };
  Status status = Prefill(request.prompt, sequence, keep_last);
  if (status.ok()) status = Decode(request, std::move(last), sequence, out);
  prefetcher_.Cancel();
  if (!status.ok()) return status;
  return out;
}

Status Engine::ScoreChunk(std::span<const int32_t> tokens, int64_t first,
                          std::span<const float> hidden, std::vector<float>& logprobs) const {
  const auto width = static_cast<size_t>(config_.hidden_size);
  const auto vocab = static_cast<size_t>(config_.vocab_size);
  // Row i predicts the token after it; the sequence's last row predicts nothing that is known.
  const size_t known =
      std::min(hidden.size() / width, tokens.size() - 1 - static_cast<size_t>(first));
  std::vector<float> logits;
  for (size_t row = 0; row < known; row += kLogitRowsMax) {
    const size_t count = std::min(kLogitRowsMax, known - row);
    logits.resize(count * vocab);
    transformer_.Logits(hidden.subspan(row * width, count * width), logits);
    RETURN_IF_ERROR(CheckFinite(logits));
    for (size_t i = 0; i < count; ++i) {
      const int32_t next = tokens[static_cast<size_t>(first) + row + i + 1];
      logprobs.push_back(
          static_cast<float>(kernels::LogProbability({logits.data() + i * vocab, vocab}, next)));
    }
  }
  return OkStatus();
}

Result<std::vector<float>> Engine::Score(std::span<const int32_t> tokens) {
  RETURN_IF_ERROR(CheckTokens(tokens, 0));
  ASSIGN_OR_RETURN(Sequence sequence,
                   Sequence::Start(next_sequence_++, config_, static_cast<int64_t>(tokens.size())));
  std::vector<float> logprobs;
  const Status status =
      Prefill(tokens, sequence, [&](int64_t first, std::span<const float> hidden) {
        return ScoreChunk(tokens, first, hidden, logprobs);
      });
  prefetcher_.Cancel();
  if (!status.ok()) return status;
  return logprobs;
}

}  // namespace engram::compute
