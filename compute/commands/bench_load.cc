#include "compute/commands/bench_load.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace engram::compute {

int64_t LengthRange::Draw(Rng& rng) const {
  return min + static_cast<int64_t>(rng.NextBelow(static_cast<uint64_t>(max - min + 1)));
}

Result<LengthRange> ParseLengths(const std::string& text) {
  const auto number = [](std::string_view digits, int64_t& value) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size() && value >= 1;
  };
  LengthRange range;
  const size_t colon = text.find(':');
  const std::string_view whole = text;
  const bool good = number(whole.substr(0, colon), range.min) &&
                    number(colon == std::string::npos ? whole : whole.substr(colon + 1), range.max);
  if (good && range.min <= range.max) return range;
  return InvalidArgument(
      fmt::format("\"{}\" is no length: give tokens, as 128, or a range, as 64:512", text));
}

std::vector<int64_t> ArrivalsNs(double rate, int64_t requests, uint64_t seed) {
  Rng rng(Mix64(seed, 1));
  std::vector<int64_t> due;
  double at = 0;
  for (int64_t i = 0; i < requests; ++i) {
    if (rate > 0) at += -std::log(1.0 - rng.NextDouble()) / rate;
    due.push_back(static_cast<int64_t>(at * 1e9));
  }
  return due;
}

std::vector<CompletionRequest> MakeRequests(const RequestLoad& options, int64_t vocab_size) {
  Rng rng(Mix64(options.seed, 2));
  std::vector<CompletionRequest> requests;
  for (int64_t i = 0; i < options.requests; ++i) {
    CompletionRequest request;
    const int64_t length = options.prompt.Draw(rng);
    const size_t start = options.text.empty() ? 0 : rng.NextBelow(options.text.size());
    for (int64_t t = 0; t < length; ++t) {
      request.prompt.push_back(
          options.text.empty()
              ? static_cast<int32_t>(rng.NextBelow(static_cast<uint64_t>(vocab_size)))
              : options.text[(start + static_cast<size_t>(t)) % options.text.size()]);
    }
    request.tokens_max = options.output.Draw(rng);
    request.ignore_eos = true;
    request.sampling.temperature = 0;
    requests.push_back(std::move(request));
  }
  return requests;
}

LoadResult RunLoad(CompletionEngine& engine, const RequestLoad& options, int64_t vocab_size) {
  std::vector<CompletionRequest> requests = MakeRequests(options, vocab_size);
  const std::vector<int64_t> arrivals = ArrivalsNs(options.rate, options.requests, options.seed);
  const bool closed = options.rate == 0;
  LoadResult result;
  result.requests.resize(requests.size());
  std::mutex mutex;
  std::condition_variable changed;
  int64_t under_way = 0;
  result.before = engine.Snapshot();
  const TimePoint start = Clock::Real().Now();
  const auto elapsed = [start] { return Nanos(Clock::Real().Now() - start).count(); };
  for (size_t i = 0; i < requests.size(); ++i) {
    RequestRecord& record = result.requests[i];
    record.due_ns = arrivals[i];
    record.prompt_tokens = static_cast<int64_t>(requests[i].prompt.size());
    if (closed) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return under_way < options.concurrency; });
      record.due_ns = elapsed();
    } else {
      std::this_thread::sleep_until(start + Nanos(arrivals[i]));
    }
    {
      const std::lock_guard lock(mutex);
      ++under_way;
    }
    const Result<uint64_t> id = engine.Submit(std::move(requests[i]), [&](Update update) {
      const int64_t now = elapsed();
      for (const SampledToken& token : update.tokens) {
        record.token_ns.push_back(now);
        record.tokens.push_back(token.token);
      }
      if (!update.finish) return;
      record.status = update.finish->status;
      const std::lock_guard lock(mutex);
      --under_way;
      changed.notify_one();
    });
    if (id.ok()) continue;
    record.status = id.status();
    const std::lock_guard lock(mutex);
    --under_way;
  }
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return under_way == 0; });
  }
  result.seconds = static_cast<double>(elapsed()) * 1e-9;
  result.after = engine.Snapshot();
  return result;
}

}  // namespace engram::compute
