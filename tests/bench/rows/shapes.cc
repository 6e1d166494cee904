#include "tests/bench/rows/shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>

#include "tests/bench/harness/leg_maker.h"
#include "tests/bench/harness/report.h"
#include "tests/bench/rows/gather_legs.h"
#include "tests/bench/rows/service.h"

namespace engram::bench {
namespace {

constexpr std::array<uint32_t, 3> kRowBytes = {160, 264, 1364};
constexpr std::array<size_t, 3> kBatchRows = {48, 3072, 98'304};

constexpr const char* kAhead = "bare, 24 rows ahead";
constexpr const char* kTogether = "bare, 64 rows together";
constexpr const char* kArena = "in process";
constexpr const char* kMapped = "shared memory";
constexpr const char* kOverTcp = "service";

std::string LegName(const char* leg, size_t rows) { return fmt::format("{}, {}", leg, rows); }

// The legs of one row size, each batch size after the other.
class Shapes {
 public:
  static Result<std::vector<Series>> Run(uint32_t row_bytes, const RowsOptions& options) {
    Shapes shapes;
    ASSIGN_OR_RETURN(shapes.tables_, TablesOfSize(options.table_mib, options.seed, row_bytes));
    RETURN_IF_ERROR(
        CheckMemoryFor((options.table_mib << 20) * 105 / 100 + 5 * kBatchRows.back() * row_bytes,
                       fmt::format("a table of {} MiB", options.table_mib)));
    ASSIGN_OR_RETURN(shapes.filled_, FillArena(shapes.tables_, /*shared=*/true));
    ServiceOptions service;
    service.cores = options.cores;
    service.wire = LoopbackWire(options.transport);
    ASSIGN_OR_RETURN(shapes.service_, Service::Start(shapes.filled_, shapes.tables_, service));
    service.path = client::Path::kLocal;
    ASSIGN_OR_RETURN(shapes.mapped_, Service::Start(shapes.filled_, shapes.tables_, service));
    LegMaker maker(shapes.tables_);
    std::vector<Leg> legs;
    for (const size_t rows : kBatchRows) {
      const LoopOptions loop{rows, 1, options.verify_every};
      const auto add = [&](const char* leg, std::unique_ptr<BatchReader> reader) {
        legs.push_back(maker.Make(LegName(leg, rows), std::move(reader), loop));
      };
      const memnode::Arena& arena = shapes.filled_.arena;
      add(kAhead, MakeBareGather(arena, BareLoop::kAhead));
      add(kTogether, MakeBareGather(arena, BareLoop::kTogether));
      add(kArena, MakeArenaGather(arena));
      add(kMapped, shapes.mapped_->MakeReader(1));
      add(kOverTcp, shapes.service_->MakeReader(1));
    }
    return RunRounds(legs, options.rounds);
  }

 private:
  Tables tables_;
  FilledArena filled_;
  std::unique_ptr<Service> service_, mapped_;  // read filled_
};

std::string Cell(const Spread& rate, const Spread& p50_us) {
  return fmt::format("{} / {:.{}f}", SpreadText(rate, 1e-6, 2), p50_us.median,
                     p50_us.median < 100 ? 1 : 0);
}

}  // namespace

Result<json::array> RunShapes(const RowsOptions& options) {
  json::array entries;
  std::vector<std::vector<std::string>> lines = {
      {"row", "batch", "bare (faster loop)", "in process", "shared memory", "service"}};
  for (const uint32_t row_bytes : kRowBytes) {
    ASSIGN_OR_RETURN(const std::vector<Series> all, Shapes::Run(row_bytes, options));
    for (const size_t rows : kBatchRows) {
      std::vector<std::string> line = {fmt::format("{} B", row_bytes), fmt::format("{}", rows)};
      json::object entry = {{"row_bytes", row_bytes}, {"batch", rows}};
      const auto add = [&](const char* name, const Spread& rate, const Spread& p50_us) {
        line.push_back(Cell(rate, p50_us));
        entry[name] = {{"rows_per_s", SpreadJson(rate)}, {"p50_us", SpreadJson(p50_us)}};
      };
      const Series& ahead = *FindSeries(all, LegName(kAhead, rows));
      const Series& together = *FindSeries(all, LegName(kTogether, rows));
      std::vector<double> rate, p50_us;
      for (size_t i = 0; i < ahead.rows_per_s.size(); ++i) {
        rate.push_back(std::max(ahead.rows_per_s[i], together.rows_per_s[i]));
        p50_us.push_back(std::min(ahead.p50_us[i], together.p50_us[i]));
      }
      add("bare gather", SpreadOf(rate), SpreadOf(p50_us));
      for (const char* leg : {kArena, kMapped, kOverTcp}) {
        const Series& series = *FindSeries(all, LegName(leg, rows));
        add(leg, SpreadOf(series.rows_per_s), SpreadOf(series.p50_us));
      }
      lines.push_back(line);
      entries.push_back(std::move(entry));
    }
  }
  fmt::print(
      "\nrows of three sizes, {} MiB each, in batches of three sizes; client with its own thread, "
      "checks verified: M rows/s (min..max) / p50 us of a batch\n{}",
      options.table_mib, TableText(lines));
  return entries;
}

}  // namespace engram::bench
