#include "tests/bench/rows/sweep.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <utility>

#include "tests/bench/harness/leg_maker.h"
#include "tests/bench/harness/report.h"
#include "tests/bench/rows/gather_legs.h"
#include "tests/bench/rows/service.h"

namespace engram::bench {
namespace {

// One table with what reads it.
struct Sized {
  Tables tables;
  FilledArena filled;
  std::unique_ptr<Service> service;
  std::unique_ptr<LegMaker> maker;
};

constexpr const char* kKinds[] = {"bare gather", "in-process gather", "service"};

Result<std::unique_ptr<Sized>> MakeSized(uint64_t mib, const RowsOptions& options) {
  auto sized = std::make_unique<Sized>();
  ASSIGN_OR_RETURN(sized->tables, TablesOfSize(mib, options.seed));
  RETURN_IF_ERROR(CheckMemoryFor(sized->tables.row_count() * (sized->tables.row_bytes() + 4),
                                 fmt::format("a table of {} MiB", mib)));
  ASSIGN_OR_RETURN(sized->filled, FillArena(sized->tables, false));
  ServiceOptions service;
  service.cores = options.cores;
  service.wire = LoopbackWire(options.transport);
  ASSIGN_OR_RETURN(sized->service, Service::Start(sized->filled, sized->tables, service));
  sized->maker = std::make_unique<LegMaker>(sized->tables);
  return sized;
}

void AddLegs(const Sized& sized, const std::string& suffix, const RowsOptions& options,
             std::vector<Leg>* legs) {
  LoopOptions gather{options.step_rows, 1, options.verify_every};
  LoopOptions service{options.step_rows, options.depth, options.verify_every};
  const memnode::Arena& arena = sized.filled.arena;
  legs->push_back(
      sized.maker->Make(kKinds[0] + suffix, MakeBareGather(arena, BareLoop::kTogether), gather));
  legs->push_back(sized.maker->Make(kKinds[1] + suffix, MakeArenaGather(arena), gather));
  legs->push_back(
      sized.maker->Make(kKinds[2] + suffix, sized.service->MakeReader(options.depth), service));
}

// ns a row in each round.
std::vector<double> NanosPerRow(const Series& series) {
  std::vector<double> nanos;
  for (const double rate : series.rows_per_s) nanos.push_back(1e9 / rate);
  return nanos;
}

}  // namespace

Result<json::array> RunSweep(const RowsOptions& options) {
  json::array sizes;
  std::string skipped;
  std::vector<std::vector<std::string>> lines = {{"table", "bare ns/row", "x smallest",
                                                  "gather ns/row", "x smallest", "service ns/row",
                                                  "x smallest", "in huge pages"}};
  ASSIGN_OR_RETURN(const std::unique_ptr<Sized> smallest,
                   MakeSized(options.sweep_mib.front(), options));
  for (const uint64_t mib : options.sweep_mib) {
    fmt::print(stderr, "rows_bench: table of {} MiB beside one of {} MiB\n", mib,
               options.sweep_mib.front());
    auto sized = MakeSized(mib, options);
    if (!sized.ok() && sized.status().code() == Code::kResourceExhausted) {
      lines.push_back({fmt::format("{} MiB", mib), "SKIPPED"});
      skipped += fmt::format("  {} MiB: SKIPPED, {}\n", mib, sized.status().message());
      sizes.push_back({{"mib", mib}, {"skipped", sized.status().message()}});
      continue;
    }
    if (!sized.ok()) return sized.status();
    std::vector<Leg> legs;
    AddLegs(*smallest, ", smallest", options, &legs);
    AddLegs(**sized, "", options, &legs);
    ASSIGN_OR_RETURN(const std::vector<Series> all, RunRounds(legs, options.rounds));
    json::object entry = {{"mib", mib}, {"rows", (*sized)->tables.row_count()}};
    std::vector<std::string> line = {fmt::format("{} MiB", mib)};
    for (const std::string kind : kKinds) {
      const std::vector<double> nanos = NanosPerRow(*FindSeries(all, kind));
      const std::vector<double> base = NanosPerRow(*FindSeries(all, kind + ", smallest"));
      const Spread ratio = SpreadOf(Ratios(nanos, base));
      line.push_back(SpreadText(SpreadOf(nanos), 1, 1));
      line.push_back(SpreadText(ratio, 1, 2));
      entry[kind] = {{"ns_per_row", SpreadJson(SpreadOf(nanos))}, {"ratio", SpreadJson(ratio)}};
    }
    const uint64_t huge_mib = HugePageBytes() >> 20;
    line.push_back(fmt::format("{} MiB", huge_mib));
    entry["huge_pages_mib"] = huge_mib;
    lines.push_back(line);
    sizes.push_back(entry);
  }
  fmt::print(
      "\ncost of a row by table size, {} rows a step; bar: within 1.15 of the smallest\n{}{}",
      options.step_rows, TableText(lines), skipped);
  return sizes;
}

}  // namespace engram::bench
