// kernels_bench: the matrix products beside what registers and memory give, in interleaved rounds.
//
//   kernels_bench [--threads N] [--rounds N] [--seconds S] [--busy]
//
// --busy adds a neighbour that never sleeps on one of the cores, as a polling memory node is.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <thread>

#include "common/base/rng.h"
#include "kernels/ops.h"
#include "kernels/packed.h"
#include "tests/bench/harness/report.h"
#include "tests/bench/harness/rounds.h"
#include "tests/bench/kernels/ceilings.h"

namespace engram::bench {
namespace {

using kernels::PackedMatrix;
using kernels::Pool;

struct Shape {
  int64_t tokens, rows, columns;
  std::string name() const { return fmt::format("{} x {} x {}", tokens, rows, columns); }
};

std::atomic<uint64_t> kept{0};  // results somebody might want

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
    ASSIGN_OR_RETURN(
        PackedMatrix packed,
        PackedMatrix::Pack(pool, kernels::MatrixOf(values, shape.rows, shape.columns)));
    weights.copies.push_back(std::move(packed));
  } while (weights.copies.size() * weights.copies[0].bytes() < bytes);
  return weights;
}

struct Options {
  int threads = 1;
  RoundOptions rounds{5, 0.2, 0.05};
  bool busy = false;
};

Status Run(const Options& options) {
  Pool pool(options.threads);
  constexpr size_t kDramBytes = size_t{512} << 20;
  ASSIGN_OR_RETURN(AlignedBuffer memory,
                   AlignedBuffer::Allocate(kDramBytes + 8192, PageBacking::kTransparent));
  std::fill(memory.bytes().begin(), memory.bytes().end(), std::byte{1});

  std::vector<Leg> legs;
  legs.push_back(Repeat("peak", [&] {
    std::atomic<double> flops{0};
    pool.Run(pool.threads(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) flops += RegisterPeak(kernels::ActiveIsa(), 100'000);
    });
    return flops.load();
  }));
  legs.push_back(Repeat("stream", [&] {
    pool.Run(kDramBytes / 512, 1, [&](int64_t begin, int64_t end) {
      kept += ReadStream(memory.data() + begin * 512, (end - begin) * 512);
    });
    return static_cast<double>(kDramBytes);
  }));
  const Shape streamed[] = {{1, 4096, 4096}, {1, 7168, 7168}, {4, 4096, 4096}, {8, 4096, 4096}};
  const Shape computed[] = {
      {16, 4096, 4096}, {64, 4096, 4096}, {256, 4096, 4096}, {512, 2048, 2048}, {96, 1024, 2048}};
  std::vector<std::unique_ptr<Weights>> all;
  const auto add = [&](const Shape& shape, size_t bytes, bool count_bytes) -> Status {
    ASSIGN_OR_RETURN(Weights made, MakeWeights(pool, shape, bytes));
    all.push_back(std::make_unique<Weights>(std::move(made)));
    Weights* const weights = all.back().get();
    auto x = std::make_shared<std::vector<float>>(static_cast<size_t>(shape.tokens * shape.columns),
                                                  0.5f);
    auto y = std::make_shared<std::vector<float>>(static_cast<size_t>(shape.tokens * shape.rows));
    legs.push_back(Repeat(shape.name(), [&pool, weights, x, y, shape, count_bytes] {
      kernels::LinearPacked(pool, *x, weights->Next(), *y);
      return static_cast<double>(shape.rows * shape.columns) *
             (count_bytes ? 2.0 : 2.0 * static_cast<double>(shape.tokens));
    }));
    return OkStatus();
  };
  for (const Shape& shape : streamed) RETURN_IF_ERROR(add(shape, kDramBytes, true));
  for (const Shape& shape : computed) RETURN_IF_ERROR(add(shape, 1, false));

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
  const Series& stream = *FindSeries(*series, "stream");
  std::vector<std::vector<std::string>> lines = {
      {"tokens x outputs x inputs", "figure", "of ceiling"}};
  lines.push_back({"register-only multiply-adds",
                   SpreadText(SpreadOf(peak.rows_per_s), 1e-9, 0) + " GFLOP/s", ""});
  lines.push_back(
      {"memory only read", SpreadText(SpreadOf(stream.rows_per_s), 1e-9, 1) + " GB/s", ""});
  const auto line = [&](const Shape& shape, const Series& ceiling, const char* unit) {
    const Series& own = *FindSeries(*series, shape.name());
    lines.push_back({shape.name(), SpreadText(SpreadOf(own.rows_per_s), 1e-9, 1) + " " + unit,
                     SpreadText(SpreadOf(Ratios(own.rows_per_s, ceiling.rows_per_s)), 1, 2)});
  };
  for (const Shape& shape : streamed) line(shape, stream, "GB/s");
  for (const Shape& shape : computed) line(shape, peak, "GFLOP/s");
  fmt::print("instructions {}, {} threads{}; median (min..max) of {} rounds\n{}",
             kernels::IsaName(kernels::ActiveIsa()), options.threads,
             options.busy ? ", beside a busy neighbour" : "", options.rounds.rounds,
             TableText(lines));
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
  app.add_flag("--busy", options.busy, "beside a thread that never sleeps");
  CLI11_PARSE(app, argc, argv);
  const engram::Status status = engram::bench::Run(options);
  if (!status.ok()) fmt::print(stderr, "kernels_bench: {}\n", status.message());
  return status.ok() ? 0 : 1;
}
