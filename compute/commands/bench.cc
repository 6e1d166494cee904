#include "compute/commands/bench.h"

#include <fmt/format.h>
#include <unistd.h>

#include "common/text/tokenizer.h"
#include "compute/commands/bench_report.h"
#include "compute/commands/file.h"
#include "compute/commands/wake_up.h"
#include "compute/session/session.h"

namespace engram::compute {
namespace {

constexpr size_t kStreamBytes = size_t{256} << 20;

// GB/s of reading memory far larger than the caches, by the engine's number of threads.
Result<double> StreamBandwidth(int threads) {
  kernels::Pool pool(threads);
  ASSIGN_OR_RETURN(AlignedBuffer memory,
                   AlignedBuffer::Allocate(kStreamBytes, PageBacking::kTransparent));
  std::fill(memory.bytes().begin(), memory.bytes().end(), std::byte{1});
  const auto* const words = reinterpret_cast<const uint64_t*>(memory.data());
  std::atomic<uint64_t> kept{0};
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const TimePoint start = Clock::Real().Now();
    pool.Run(kStreamBytes / 8, 4096, [&](int64_t begin, int64_t end) {
      uint64_t sum[8] = {};  // independent, so that the loop is vectorised
      for (int64_t i = begin; i + 8 <= end; i += 8) {
        for (int64_t lane = 0; lane < 8; ++lane) sum[lane] += words[i + lane];
      }
      for (const uint64_t lane : sum) kept += lane;
    });
    const auto ns = static_cast<double>(Nanos(Clock::Real().Now() - start).count());
    best = std::max(best, static_cast<double>(kStreamBytes) / ns);
  }
  return best;
}

Result<RequestLoad> LoadOf(const ComputeConfig& config, const BenchOptions& options) {
  RequestLoad load;
  load.requests = options.requests;
  load.seed = options.seed;
  ASSIGN_OR_RETURN(load.prompt, ParseLengths(options.prompt_tokens));
  ASSIGN_OR_RETURN(load.output, ParseLengths(options.output_tokens));
  if (options.text_file.empty()) return load;
  ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(options.text_file));
  ASSIGN_OR_RETURN(const text::Tokenizer tokenizer,
                   text::Tokenizer::Load(config.model_path + "/tokenizer.json"));
  ASSIGN_OR_RETURN(load.text, tokenizer.Encode(text));
  if (!load.text.empty()) return load;
  return InvalidArgument(fmt::format("{} has no text", options.text_file));
}

std::vector<int64_t> Concurrencies(const BenchOptions& options) {
  return options.concurrencies.empty() ? std::vector<int64_t>{1} : options.concurrencies;
}

Status FirstFailure(const LoadResult& result) {
  for (const RequestRecord& record : result.requests) {
    if (!record.status.ok()) return record.status;
  }
  return OkStatus();
}

// One engine: an open loop for each rate, or a closed one for each concurrency.
Result<json::array> RunLoads(const ComputeConfig& config, const BenchOptions& options,
                             parallel::Collective& ranks) {
  ASSIGN_OR_RETURN(RequestLoad load, LoadOf(config, options));
  ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Open(config, ranks));
  ASSIGN_OR_RETURN(const double stream, StreamBandwidth(ThreadsOf(config, ranks)));
  const double token_bytes = static_cast<double>(session->decode_bytes());
  json::array reports;
  Status passed;  // the first ceiling that a figure passed
  double alone = 0;
  double first_prompt_flops_per_s = 0;
  const auto run = [&](const std::string& name) {
    ++load.seed;  // no prompt is met again
    const LoadFigures figures =
        FiguresOf(RunLoad(session->completions(), load, session->model().vocab_size));
    fmt::print("{}\n{}", name, FiguresText(figures));
    json::object report = FiguresJson(figures);
    report["load"] = name;
    if (load.rate == 0 && load.concurrency == 1) {
      alone = figures.decode_tokens_per_s;
      const double prompt = static_cast<double>(load.prompt.min + load.prompt.max) / 2;
      const double output = static_cast<double>(load.output.min + load.output.max) / 2;
      const DecodeBound bound{
          token_bytes,
          static_cast<double>(session->cache_bytes_a_position()) * (prompt + output / 2), stream,
          static_cast<double>(std::max(0L, ::sysconf(_SC_LEVEL3_CACHE_SIZE)))};
      const double share = bound.Share(alone);
      fmt::print(
          "  decode reads {:.1f} MB of weights and {:.1f} of cache a token: {:.1f} GB/s of {:.1f} "
          "that memory gives, {:.2f}\n",
          token_bytes * 1e-6, bound.cache_bytes * 1e-6, share * stream, stream, share);
      report["decode_gb_per_s"] = share * stream;
      report["stream_gb_per_s"] = stream;
      if (passed.ok()) passed = CheckBelow(bound, alone);
      const double flops_per_s =
          figures.prefill_tokens_per_s * PromptFlops(token_bytes, session->model(), prompt / 2);
      if (first_prompt_flops_per_s == 0) first_prompt_flops_per_s = flops_per_s;
      report["prompt_flops_per_s"] = flops_per_s;
      fmt::print("  prompts multiply at {:.1f} GFLOP/s, {:.2f} of the first load's\n",
                 flops_per_s * 1e-9, flops_per_s / first_prompt_flops_per_s);
    } else if (load.rate == 0 && alone > 0) {
      fmt::print(
          "  decode at {} together is {:.2f} times that of one; prompts, bound by multiplying, "
          "{:.2f}\n",
          load.concurrency, figures.decode_tokens_per_s / alone,
          figures.prefill_tokens_per_s / alone);
    }
    reports.push_back(std::move(report));
  };
  const auto done = [&]() -> Result<json::array> {
    RETURN_IF_ERROR(passed);
    return reports;
  };
  load.concurrency = 1;
  load.requests = 1;  // warm: pages touched, caches filled
  RunLoad(session->completions(), load, session->model().vocab_size);
  load.requests = options.requests;
  for (const double rate : options.rates) {
    load.rate = rate;
    run(fmt::format("open loop, {} requests/s", rate));
  }
  load.rate = 0;
  load.concurrency = 1;
  const LengthRange prompt = load.prompt;
  for (const int64_t context : options.contexts) {
    load.prompt = {context, context};
    run(fmt::format("one request at a time, prompts of {}", context));
  }
  load.prompt = prompt;
  const bool has_run = !options.rates.empty() || !options.contexts.empty();
  if (has_run && options.concurrencies.empty()) return done();
  for (const int64_t concurrency : Concurrencies(options)) {
    load.concurrency = concurrency;
    run(fmt::format("closed loop, {} at once", concurrency));
  }
  return done();
}

struct Compared {
  std::vector<double> prefill, decode, output, exposed_percent;
};

// Two engines on the same requests, one at a time, the order turned round each round.
Result<json::array> RunComparison(const ComputeConfig& config, const BenchOptions& options) {
  if (config.lookup.memnodes.empty()) {
    return InvalidArgument("--compare local,remote needs --memnodes for the remote side");
  }
  ASSIGN_OR_RETURN(RequestLoad load, LoadOf(config, options));
  ComputeConfig local_config = config;
  local_config.lookup.memnodes.clear();
  ASSIGN_OR_RETURN(const std::unique_ptr<Session> local, Session::Open(local_config));
  ASSIGN_OR_RETURN(const std::unique_ptr<Session> remote, Session::Open(config));
  fmt::print(
      "remote beside in-process tables; what the memory nodes on this machine use of its cores is\n"
      "in the remote figures, nothing is taken off\n");
  const std::vector<double> wake_ups = WakeUpRoundTrips(200, 2000);
  fmt::print("a thread that sleeps answers this machine in p50 {:.0f}, p90 {:.0f}, p99 {:.0f} us\n",
             Percentile(wake_ups, 0.5), Percentile(wake_ups, 0.9), Percentile(wake_ups, 0.99));
  json::array reports;
  for (const int64_t concurrency : Concurrencies(options)) {
    load.concurrency = concurrency;
    Compared compared;
    for (int64_t round = -1; round < options.rounds; ++round) {  // the first warms up
      ++load.seed;
      const int64_t vocab = local->model().vocab_size;
      LoadResult own, other;
      if (round % 2 == 0) {
        own = RunLoad(local->completions(), load, vocab);
        other = RunLoad(remote->completions(), load, vocab);
      } else {
        other = RunLoad(remote->completions(), load, vocab);
        own = RunLoad(local->completions(), load, vocab);
      }
      RETURN_IF_ERROR(FirstFailure(own).WithContext("in-process tables"));
      RETURN_IF_ERROR(FirstFailure(other).WithContext("memory nodes"));
      if (!SameTokens(own, other)) {
        return InternalError("the memory nodes' answers differ from the in-process ones");
      }
      if (round < 0) continue;
      const LoadFigures a = FiguresOf(own);
      const LoadFigures b = FiguresOf(other);
      compared.prefill.push_back(b.prefill_tokens_per_s / a.prefill_tokens_per_s);
      compared.decode.push_back(b.decode_tokens_per_s / a.decode_tokens_per_s);
      compared.output.push_back(b.output_tokens_per_s / a.output_tokens_per_s);
      compared.exposed_percent.push_back(100 * b.exposed_share);
    }
    const auto show = [&](const char* what, const std::vector<double>& values, int decimals) {
      const Interval median = MedianInterval(values);
      fmt::print("  {:34}{}, the median within {:.{}f}..{:.{}f} (95 %)\n", what,
                 SpreadText(SpreadOf(values), 1, decimals), median.low, decimals, median.high,
                 decimals);
    };
    fmt::print("closed loop, {} at once, {} rounds of {} requests, all answers equal\n",
               concurrency, options.rounds, options.requests);
    show("remote / local, prompt tokens/s", compared.prefill, 3);
    show("remote / local, decode tokens/s", compared.decode, 3);
    show("remote / local, output tokens/s", compared.output, 3);
    show("exposed wait, % of step time", compared.exposed_percent, 4);
    const auto list = [](const std::vector<double>& values) {
      return json::array(values.begin(), values.end());
    };
    reports.push_back({{"concurrency", concurrency},
                       {"prefill_ratio", list(compared.prefill)},
                       {"decode_ratio", list(compared.decode)},
                       {"output_ratio", list(compared.output)},
                       {"exposed_percent", list(compared.exposed_percent)}});
  }
  return reports;
}

}  // namespace

Status RunBench(const ComputeConfig& config, const BenchOptions& options,
                parallel::Collective& ranks) {
  if (!options.compare.empty() && options.compare != "local,remote") {
    return InvalidArgument(
        fmt::format("--compare is \"{}\"; it must be local,remote", options.compare));
  }
  if (!options.compare.empty() && ranks.size() > 1) {
    return InvalidArgument("--compare opens two engines: it takes one rank");
  }
  ASSIGN_OR_RETURN(const json::array reports, options.compare.empty()
                                                  ? RunLoads(config, options, ranks)
                                                  : RunComparison(config, options));
  if (options.json_file.empty()) return OkStatus();
  ASSIGN_OR_RETURN(ReplacingFile file, ReplacingFile::Create(options.json_file));
  RETURN_IF_ERROR(file.Write(json::serialize(reports) + "\n"));
  return file.Commit();
}

}  // namespace engram::compute
