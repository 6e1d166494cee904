// kernels_bench: the matrix products beside what registers and memory give, in interleaved rounds.
//
//   kernels_bench [--threads N] [--rounds N] [--seconds S] [--attention] [--busy]
//
// A figure that passes its ceiling by more than 5 % is an error, which says which of both is wrong.
// --busy adds a neighbour that never sleeps on one of the cores, as a polling memory node is.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <numeric>
#include <thread>

#include "common/base/rng.h"
#include "common/table/row_codec.h"
#include "kernels/ops.h"
#include "kernels/packed.h"
#include "kernels/weight_memory.h"
#include "tests/bench/harness/report.h"
#include "tests/bench/harness/rounds.h"
#include "tests/bench/kernels/ceilings.h"
#include "tests/bench/kernels/small_ops.h"

namespace engram::bench {
namespace {

using kernels::PackedMatrix;
using kernels::Pool;

struct Shape {
  int64_t tokens, rows, columns;
  std::string name() const { return fmt::format("{} x {} x {}", tokens, rows, columns); }
};

std::atomic<uint64_t> kept{0};  // sums of results, so that the compiler keeps the work

// A leg that repeats `work` and adds up what it returns.
Leg Repeat(const std::string& name, std::function<double()> work) {
  return {name, [work = std::move(work)](double seconds, bool) -> Result<Round> {
            Round round;
            double units = 0;
            const TimePoint start = Clock::Real().Now();
            do {
              units += work();
              round.seconds =
                  static_cast<double>(Nanos(Clock::Real().Now() - start).count()) * 1e-9;
            } while (round.seconds < seconds);
            round.rows = static_cast<uint64_t>(units);
            return round;
          }};
}

// Enough copies of a matrix that none is found in the cache again.
struct Weights {
  kernels::WeightMemory memory;
  std::vector<PackedMatrix> copies;
  size_t next = 0;
  const PackedMatrix& Next() { return copies[next++ % copies.size()]; }
};

Result<Weights> MakeWeights(Pool& pool, const Shape& shape, size_t bytes) {
  Rng rng(1);
  std::vector<Bf16> values(static_cast<size_t>(shape.rows * shape.columns));
  for (Bf16& value : values) value = ToBf16(static_cast<float>(rng.NextDouble() - 0.5));
  Weights weights;
  do {
    ASSIGN_OR_RETURN(PackedMatrix packed,
                     PackedMatrix::Pack(pool, weights.memory,
                                        kernels::MatrixOf(values, shape.rows, shape.columns)));
    weights.copies.push_back(std::move(packed));
  } while (weights.copies.size() * weights.copies[0].bytes() < bytes);
  return weights;
}

// Attention of `tokens` tokens of each of `segments` sequences, the last of `positions`;
// `sequences` caches in turn, together far larger than what the processor keeps.
struct CacheShape {
  std::string name;
  int64_t tokens = 1, segments = 1, positions = 4096, sequences = 16;
  int64_t page = 64;
  kernels::MlaShape mla{16, 128, 64, 128, 512, 0.07f};

  int64_t entry() const { return mla.latent + mla.rope; }
  double bytes() const { return static_cast<double>(segments * positions * entry() * 4); }
  // Of the products with the cache and with kv_b.
  double flops() const {
    const int64_t seen = tokens * positions - tokens * (tokens - 1) / 2;
    return 2.0 * static_cast<double>(segments * mla.heads *
                                     (seen * (entry() + mla.latent) +
                                      tokens * mla.latent * (mla.nope + mla.value)));
  }
};

Result<Leg> AttentionLeg(Pool& pool, const CacheShape& shape) {
  struct State {
    AlignedBuffer cache;  // in huge pages, as the engine's
    std::vector<float> q, out;
    std::vector<Bf16> kv_b;
    std::vector<std::vector<int32_t>> pages;  // of each sequence
    size_t next = 0;
  };
  auto state = std::make_shared<State>();
  const kernels::MlaShape& mla = shape.mla;
  const int64_t tokens = shape.tokens * shape.segments;
  const auto floats = static_cast<size_t>(shape.sequences * shape.positions * shape.entry());
  ASSIGN_OR_RETURN(state->cache,
                   AlignedBuffer::Allocate(floats * sizeof(float), PageBacking::kTransparent));
  auto* const cache = reinterpret_cast<float*>(state->cache.data());
  std::fill_n(cache, floats, 0.01f);
  state->q.assign(static_cast<size_t>(tokens * mla.heads * (mla.nope + mla.rope)), 0.1f);
  state->out.resize(static_cast<size_t>(tokens * mla.heads * mla.value));
  state->kv_b.assign(static_cast<size_t>(mla.heads * (mla.nope + mla.value) * mla.latent),
                     ToBf16(0.01f));
  for (int64_t s = 0; s < shape.sequences; ++s) {
    auto& pages = state->pages.emplace_back();
    pages.resize(shape.positions / shape.page);
    std::iota(pages.begin(), pages.end(), static_cast<int32_t>(s * std::ssize(pages)));
  }
  return Repeat(shape.name, [&pool, shape, state] {
    const kernels::MlaShape& m = shape.mla;
    std::vector<kernels::MlaSegment> segments;
    for (int64_t i = 0; i < shape.segments; ++i) {
      segments.push_back({shape.tokens, shape.positions - shape.tokens,
                          state->pages[state->next++ % state->pages.size()]});
    }
    const kernels::MlaCache all{state->cache.data(), shape.page * shape.entry() * 4, shape.page};
    kernels::MlaAttention(pool, m, all, segments, state->q,
                          kernels::MatrixOf(state->kv_b, m.heads * (m.nope + m.value), m.latent),
                          state->out);
    return shape.flops();
  });
}

// What memory gives, or registers: one flop a byte of bf16 weights and token.
std::vector<double> WeightCeiling(const Shape& shape, const Series& peak, const Series& stream) {
  std::vector<double> ceiling;
  for (size_t i = 0; i < peak.rows_per_s.size(); ++i) {
    ceiling.push_back(
        std::min(peak.rows_per_s[i] / static_cast<double>(shape.tokens), stream.rows_per_s[i]));
  }
  return ceiling;
}

// What registers (fp32) and memory allow together, round by round.
std::vector<double> AttentionCeiling(const CacheShape& shape, const Series& fp32_peak,
                                     const Series& stream) {
  std::vector<double> ceiling;
  for (size_t i = 0; i < fp32_peak.rows_per_s.size(); ++i) {
    ceiling.push_back(
        std::min(fp32_peak.rows_per_s[i], stream.rows_per_s[i] * shape.flops() / shape.bytes()));
  }
  return ceiling;
}

// 8 tokens, 8 of 64 experts each: 64 groups of one token.
Result<Leg> ExpertsLeg(Pool& pool) {
  constexpr int64_t kWidth = 2048, kInner = 768, kExperts = 64;
  struct State {
    kernels::WeightMemory memory;
    std::vector<PackedMatrix> gate_up, down;
    std::vector<kernels::ExpertGroup> groups;
    kernels::RoundedActivations x;
    std::vector<int32_t> rows;
    std::vector<float> out;
  };
  auto state = std::make_shared<State>();
  const std::vector<Bf16> values(static_cast<size_t>(kWidth * kInner), ToBf16(0.01f));
  for (int64_t e = 0; e < kExperts; ++e) {
    const kernels::Matrix in = kernels::MatrixOf(values, kInner, kWidth);
    ASSIGN_OR_RETURN(PackedMatrix gate_up, PackedMatrix::PackPair(pool, state->memory, in, in));
    ASSIGN_OR_RETURN(
        PackedMatrix down,
        PackedMatrix::Pack(pool, state->memory, kernels::MatrixOf(values, kWidth, kInner)));
    state->gate_up.push_back(std::move(gate_up));
    state->down.push_back(std::move(down));
  }
  for (int32_t e = 0; e < kExperts; ++e) {
    state->groups.push_back({&state->gate_up[e], &state->down[e], 1});
    state->rows.push_back(e);
  }
  state->out.assign(kExperts * kWidth, 0.1f);
  state->x = kernels::RoundedActivations(pool.memory(), kExperts, kWidth);
  state->x.Round(pool, state->out);
  return Repeat("experts", [&pool, state] {
    kernels::GatedExperts(pool, state->groups, state->x, state->rows, state->out);
    return 3.0 * 2 * kWidth * kInner * kExperts;
  });
}

// Rows of V4.1 to floats; bytes read and written.
Leg RowsLeg() {
  const table::RowFormat format{table::RowEncoding::kFp8Scaled, 256};
  auto rows =
      std::make_shared<std::vector<std::byte>>(size_t{3072} * format.row_bytes(), std::byte{0x3c});
  auto values = std::make_shared<std::vector<float>>(size_t{3072} * 256);
  return Repeat("rows", [format, rows, values] {
    for (size_t i = 0; i < 3072; ++i) {
      table::DecodeRow(format, std::span(*rows).subspan(i * 264, 264),
                       std::span(*values).subspan(i * 256, 256));
    }
    return 3072.0 * (264 + 1024);
  });
}

struct Options {
  int threads = 1;
  bool attention = false;  // its legs and their ceilings only
  RoundOptions rounds{5, 0.2, 0.05};
  bool busy = false;
};

// A ratio above it says that a figure or its ceiling is wrong.
constexpr double kRatioMax = 1.05;

// Which of both it is: a ceiling whose own best round reaches the figure was measured too low; a
// figure above that counts more than is done, or finds in cache what it should fetch.
std::string PassedText(const std::string& name, const std::vector<double>& own,
                       const std::vector<double>& ceiling, const char* unit) {
  const double figure = SpreadOf(own).median, best = SpreadOf(ceiling).max;
  return fmt::format(
      "{}: {:.1f} {} passes its ceiling, {:.1f}: {}", name, figure * 1e-9, unit,
      SpreadOf(ceiling).median * 1e-9,
      best >= figure / kRatioMax
          ? fmt::format("the ceiling is wrong, its best round gave {:.1f}", best * 1e-9)
          : fmt::format("the figure is wrong, no round of the ceiling gave more than "
                        "{:.1f}",
                        best * 1e-9));
}

Status Run(const Options& options) {
  Pool pool(options.threads);
  constexpr size_t kDramBytes = size_t{512} << 20;
  ASSIGN_OR_RETURN(AlignedBuffer memory,
                   AlignedBuffer::Allocate(kDramBytes + 8192, PageBacking::kTransparent));
  std::fill(memory.bytes().begin(), memory.bytes().end(), std::byte{1});

  std::vector<Leg> legs;
  const auto add_peak = [&](const char* name, double (*run)(kernels::Isa, int64_t)) {
    legs.push_back(Repeat(name, [&pool, run] {
      std::atomic<double> flops{0};
      pool.Run(pool.threads(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) flops += run(kernels::ActiveIsa(), 100'000);
      });
      return flops.load();
    }));
  };
  add_peak("peak", RegisterPeakBf16);
  add_peak("fp32 peak", RegisterPeakFp32);
  for (const bool ask_ahead : {false, true}) {
    legs.push_back(Repeat(ask_ahead ? "stream, asked for" : "stream", [&, ask_ahead] {
      pool.Run(kDramBytes / 512, 1, [&](int64_t begin, int64_t end) {
        kept += ReadStream(memory.data() + begin * 512, (end - begin) * 512, ask_ahead);
      });
      return static_cast<double>(kDramBytes);
    }));
  }
  const Shape streamed[] = {{1, 4096, 4096}, {1, 7168, 7168}, {4, 4096, 4096}, {8, 4096, 4096}};
  const Shape computed[] = {
      {16, 4096, 4096}, {64, 4096, 4096}, {256, 4096, 4096}, {512, 2048, 2048}, {96, 1024, 2048}};
  std::vector<std::unique_ptr<Weights>> all;
  const auto add = [&](const Shape& shape, size_t bytes, bool count_bytes) -> Status {
    ASSIGN_OR_RETURN(Weights made, MakeWeights(pool, shape, bytes));
    all.push_back(std::make_unique<Weights>(std::move(made)));
    Weights* const weights = all.back().get();
    // As norms and SwiGlu leave them.
    kernels::RoundedActivations x(pool.memory(), shape.tokens, shape.columns);
    x.Round(pool, std::vector<float>(shape.tokens * shape.columns, 0.5f));
    auto y = std::make_shared<std::vector<float>>(static_cast<size_t>(shape.tokens * shape.rows));
    legs.push_back(Repeat(shape.name(), [&pool, weights, x, y, shape, count_bytes] {
      kernels::LinearPacked(pool, x, weights->Next(), *y);
      return static_cast<double>(shape.rows * shape.columns) *
             (count_bytes ? 2.0 : 2.0 * static_cast<double>(shape.tokens));
    }));
    return OkStatus();
  };
  for (const Shape& shape : streamed) {
    if (!options.attention) RETURN_IF_ERROR(add(shape, kDramBytes, true));
  }
  for (const Shape& shape : computed) {
    if (!options.attention) RETURN_IF_ERROR(add(shape, 1, false));
  }

  const CacheShape attended[] = {
      {.name = "one token over 4096 cached (16 heads)"},
      {.name = "the same, 8 heads of 128 + 32", .sequences = 64, .mla = {8, 64, 32, 64, 128, 0.1f}},
      {.name = "8 tokens of 8 sequences over 4096", .segments = 8},
      {.name = "256 tokens over 1024 cached", .tokens = 256, .positions = 1280, .sequences = 8}};
  for (const CacheShape& shape : attended) {
    ASSIGN_OR_RETURN(Leg leg, AttentionLeg(pool, shape));
    legs.push_back(std::move(leg));
  }
  std::vector<Leg> small;
  if (!options.attention) {
    ASSIGN_OR_RETURN(Leg experts, ExpertsLeg(pool));
    legs.push_back(std::move(experts));
    legs.push_back(RowsLeg());
    small = SmallOpLegs();
  }
  std::vector<std::string> small_names;
  for (Leg& leg : small) {
    small_names.push_back(leg.name);
    legs.push_back(std::move(leg));
  }
  std::vector<std::byte> copied(size_t{4} << 20), copy(copied.size());
  legs.push_back(Repeat("copy", [&] {  // in the second-level cache's neighbourhood, as rows are
    std::copy(copied.begin(), copied.end(), copy.begin());
    return 2.0 * static_cast<double>(copied.size());
  }));

  std::atomic<bool> stop{false};
  std::thread neighbour;
  if (options.busy) {
    neighbour = std::thread([&] {
      while (!stop) ++kept;
    });
  }
  const Result<std::vector<Series>> series = RunRounds(legs, options.rounds);
  stop = true;
  if (neighbour.joinable()) neighbour.join();
  if (!series.ok()) return series.status();

  const Series& peak = *FindSeries(*series, "peak");
  const Series& fp32_peak = *FindSeries(*series, "fp32 peak");
  const Series& unasked = *FindSeries(*series, "stream");
  const Series& asked = *FindSeries(*series, "stream, asked for");
  const bool better = SpreadOf(asked.rows_per_s).median > SpreadOf(unasked.rows_per_s).median;
  const Series& stream = better ? asked : unasked;
  std::vector<std::vector<std::string>> lines = {
      {"tokens x outputs x inputs", "figure", "of ceiling"}};
  lines.push_back({"register-only multiply-adds",
                   SpreadText(SpreadOf(peak.rows_per_s), 1e-9, 0) + " GFLOP/s", ""});
  lines.push_back(
      {"the same in fp32", SpreadText(SpreadOf(fp32_peak.rows_per_s), 1e-9, 0) + " GFLOP/s", ""});
  lines.push_back(
      {"memory only read", SpreadText(SpreadOf(stream.rows_per_s), 1e-9, 1) + " GB/s", ""});
  std::vector<std::string> passed;  // ceilings, which none can be
  const auto line = [&](const std::string& name, const std::vector<double>& own,
                        const std::vector<double>& ceiling, const char* unit) {
    const std::vector<double> ratios = Ratios(own, ceiling);
    lines.push_back({name, SpreadText(SpreadOf(own), 1e-9, 1) + " " + unit,
                     SpreadText(SpreadOf(ratios), 1, 2)});
    if (SpreadOf(ratios).median > kRatioMax) passed.push_back(PassedText(name, own, ceiling, unit));
  };
  const auto of = [&](const std::string& name) -> const std::vector<double>& {
    return FindSeries(*series, name)->rows_per_s;
  };
  if (!options.attention) {
    for (const Shape& shape : streamed) {
      line(shape.name(), of(shape.name()), WeightCeiling(shape, peak, stream), "GB/s");
    }
    for (const Shape& shape : computed) {
      line(shape.name(), of(shape.name()), peak.rows_per_s, "GFLOP/s");
    }
  }
  const auto other = [&](const char* name, const char* text, const Series& ceiling) {
    const Series& own = *FindSeries(*series, name);
    lines.push_back({text, SpreadText(SpreadOf(own.rows_per_s), 1e-9, 1) + " GB/s",
                     SpreadText(SpreadOf(Ratios(own.rows_per_s, ceiling.rows_per_s)), 1, 2)});
  };
  for (const CacheShape& shape : attended) {
    line(shape.name, of(shape.name), AttentionCeiling(shape, fp32_peak, stream), "GFLOP/s");
  }
  if (!options.attention) {
    line("64 experts, one token each", of("experts"), stream.rows_per_s, "GB/s");
    other("rows", "V4.1 rows to floats, beside a copy", *FindSeries(*series, "copy"));
  }
  for (const std::string& name : small_names) {
    other(name.c_str(), (name + ", beside a copy").c_str(), *FindSeries(*series, "copy"));
  }
  fmt::print("instructions {}, {} threads{}; median (min..max) of {} rounds\n{}",
             kernels::IsaName(kernels::ActiveIsa()), options.threads,
             options.busy ? ", beside a busy neighbour" : "", options.rounds.rounds,
             TableText(lines));
  if (!passed.empty()) return InternalError(fmt::format("{}", fmt::join(passed, "\n")));
  return OkStatus();
}

}  // namespace
}  // namespace engram::bench

int main(int argc, char** argv) {
  CLI::App app("matrix products beside their ceilings");
  engram::bench::Options options;
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 64));
  app.add_option("--rounds", options.rounds.rounds)->check(CLI::Range(1, 1000));
  app.add_option("--seconds", options.rounds.seconds)->check(CLI::Range(0.01, 60.0));
  app.add_flag("--attention", options.attention, "only attention and its ceilings");
  app.add_flag("--busy", options.busy, "beside a thread that never sleeps");
  CLI11_PARSE(app, argc, argv);
  const engram::Status status = engram::bench::Run(options);
  if (!status.ok()) fmt::print(stderr, "kernels_bench: {}\n", status.message());
  return status.ok() ? 0 : 1;
}
