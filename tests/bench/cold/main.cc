// cold_bench: rows that are not in memory. Pages read one by one and through the cold tier, at each
// queue depth, beside fio's 4 KiB random reads and RocksDB with one key a row; and the sequential
// load of partitions beside fio's sequential read. All of one run, on one file system.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <thread>

#include "common/base/rng.h"
#include "common/table/row_check.h"
#include "memnode/store/rocks_store.h"
#include "memnode/store/table_reader.h"
#include "memnode/tables/cold_reader.h"
#include "memnode/tables/partition_loader.h"
#include "tests/bench/cold/fio.h"
#include "tests/bench/cold/row_per_key.h"
#include "tests/bench/harness/ceilings.h"
#include "tests/bench/harness/machine.h"
#include "tests/bench/harness/report.h"
#include "tests/bench/harness/rounds.h"
#include "tests/memnode/procedural_source.h"

namespace engram::bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string folder;
  double gib = 2;
  std::vector<int> depths = {1, 4, 16, 64};
  int rounds = 5;
  double seconds = 1;
  bool row_per_key = true;
};

uint64_t SizeOnDisk(const std::string& folder) {
  uint64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  return bytes;
}

double Seconds(TimePoint begin) {
  return std::chrono::duration<double>(Clock::Real().Now() - begin).count();
}

// `read(rng)` one after the other on each of `threads` threads.
Result<Round> ReadOnThreads(int threads, double seconds,
                            const std::function<Status(Rng&, std::string*)>& read) {
  static std::atomic<uint64_t> seed = 1;
  std::atomic<uint64_t> rows = 0;
  std::atomic<bool> failed = false;
  const TimePoint begin = Clock::Real().Now();
  std::vector<std::thread> pool;
  for (int i = 0; i < threads; ++i) {
    pool.emplace_back([&] {
      Rng rng(seed++);
      std::string scratch;
      uint64_t mine = 0;
      while (Seconds(begin) < seconds && !failed) {
        if (!read(rng, &scratch).ok()) failed = true;
        ++mine;
      }
      rows += mine;
    });
  }
  for (std::thread& thread : pool) thread.join();
  if (failed) return DataLoss("a row could not be read");
  Round round;
  round.seconds = Seconds(begin);
  round.rows = rows;
  return round;
}

class ColdBench {
 public:
  ColdBench(const Options& options, const memnode::ProceduralSource& source,
            const memnode::TableReader& reader, const RowPerKey* row_per_key)
      : options_(options), source_(source), reader_(reader), row_per_key_(row_per_key) {}

  std::vector<Leg> Legs() {
    std::vector<Leg> legs;
    const bool has_fio = !FindProgram("fio").empty();
    for (const int depth : options_.depths) {
      const auto add = [&](const char* name, auto run) {
        legs.push_back({fmt::format("{} {}", name, depth), run});
      };
      if (has_fio) {
        for (const char* engine : {"libaio", "psync"}) {
          add(engine,
              [this, depth, engine](double seconds, bool) { return Fio(engine, depth, seconds); });
        }
      }
      add("pages", [this, depth](double seconds, bool) { return Pages(depth, seconds); });
      add("tier", [this, depth](double seconds, bool) { return Tier(depth, seconds); });
      if (row_per_key_ == nullptr) continue;
      add("row-per-key", [this, depth](double seconds, bool) { return RowsByKey(depth, seconds); });
    }
    return legs;
  }

 private:
  struct RowAt {
    uint32_t layer_index;
    uint64_t row;
  };
  RowAt AnyRow(Rng& rng) const {
    const auto layer = static_cast<uint32_t>(rng.NextBelow(source_.layer_count()));
    return {layer, rng.NextBelow(source_.rows(layer))};
  }

  Result<Round> Fio(const std::string& engine, int depth, double seconds) const {
    FioJob job;
    job.engine = engine;
    job.depth = depth;
    job.seconds = seconds;
    ASSIGN_OR_RETURN(const FioResult result, RunFio(job, options_.folder + "/fio.data",
                                                    static_cast<uint64_t>(options_.gib * 0x1p30)));
    Round round;
    round.seconds = seconds;
    round.rows = static_cast<uint64_t>(result.iops * seconds);
    return round;
  }

  Result<Round> Pages(int depth, double seconds) const {
    return ReadOnThreads(depth, seconds, [this](Rng& rng, std::string* scratch) {
      const RowAt at = AnyRow(rng);
      return reader_.ReadPage(at.layer_index, reader_.PageOfRow(at.layer_index, at.row), scratch)
          .status();
    });
  }

  Result<Round> RowsByKey(int depth, double seconds) const {
    return ReadOnThreads(depth, seconds, [this](Rng& rng, std::string* scratch) {
      const RowAt at = AnyRow(rng);
      return row_per_key_->Read(at.layer_index, at.row, scratch);
    });
  }

  // Batches of 64 tokens' rows as a data thread submits them, enough to keep `depth` readers busy.
  Result<Round> Tier(int depth, double seconds) const {
    constexpr size_t kBatchRows = 3072;
    memnode::ColdReader::Options options;
    options.threads = depth;
    memnode::ColdReader cold(reader_, nullptr, options);
    Rng rng(static_cast<uint64_t>(depth));
    Round round;
    const TimePoint begin = Clock::Real().Now();
    const auto submit = [&] {
      std::vector<memnode::ColdRow> rows;
      for (uint32_t place = 0; place < kBatchRows / 8; ++place) {
        const RowAt at = AnyRow(rng);
        rows.push_back({0, place, at.layer_index, at.row});
      }
      auto batch = std::make_shared<memnode::ColdBatch>(
          std::move(rows), 1, reader_.row_bytes() + table::kRowCheckBytes, [] {});
      CHECK(cold.Submit(batch));
      return batch;
    };
    std::vector<std::shared_ptr<memnode::ColdBatch>> under_way;
    for (int i = 0; i < 4; ++i) under_way.push_back(submit());
    while (Seconds(begin) < seconds) {
      for (auto& batch : under_way) {
        if (!batch->Arrived(0)) continue;
        RETURN_IF_ERROR(batch->status(0));
        round.rows += batch->rows().size();
        batch = submit();
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    round.seconds = Seconds(begin);
    return round;
  }

  const Options& options_;
  const memnode::ProceduralSource& source_;
  const memnode::TableReader& reader_;
  const RowPerKey* const row_per_key_;
};

std::vector<double> RatioOf(std::span<const Series> series, const std::string& a,
                            const std::string& b) {
  const Series* ours = FindSeries(series, a);
  const Series* theirs = FindSeries(series, b);
  if (ours == nullptr || theirs == nullptr) return {};
  return Ratios(ours->rows_per_s, theirs->rows_per_s);
}

void PrintTable(const Options& options, std::span<const Series> series) {
  std::vector<std::vector<std::string>> lines = {
      {"depth", "fio libaio /s", "fio psync /s", "pages /s", "tier rows/s", "pages / psync",
       "pages / libaio", "tier / psync", "row per key /s"}};
  for (const int depth : options.depths) {
    const auto name = [&](const char* leg) { return fmt::format("{} {}", leg, depth); };
    const auto rate = [&](const char* leg) {
      const Series* found = FindSeries(series, name(leg));
      return found == nullptr ? "-" : SpreadText(SpreadOf(found->rows_per_s), 1e-3, 1) + " k";
    };
    const auto ratio = [&](const char* a, const char* b) {
      const std::vector<double> ratios = RatioOf(series, name(a), name(b));
      return ratios.empty() ? "-" : SpreadText(SpreadOf(ratios), 1, 2);
    };
    lines.push_back({std::to_string(depth), rate("libaio"), rate("psync"), rate("pages"),
                     rate("tier"), ratio("pages", "psync"), ratio("pages", "libaio"),
                     ratio("tier", "psync"), rate("row-per-key")});
  }
  fmt::print("{}", TableText(lines));
}

// Reads of rows beside fio's: the faster of its two engines, round by round. Every page's checksum
// is compared.
std::vector<BoundedLeg> BoundedReads(const Options& options, std::span<const Series> series) {
  std::vector<BoundedLeg> bounded;
  for (const int depth : options.depths) {
    const auto find = [&](const char* leg) {
      return FindSeries(series, fmt::format("{} {}", leg, depth));
    };
    const Series *const queue = find("libaio"), *const threads = find("psync");
    if (queue == nullptr || threads == nullptr) continue;
    std::vector<double> ceiling;
    for (size_t i = 0; i < queue->rows_per_s.size(); ++i) {
      ceiling.push_back(std::max(queue->rows_per_s[i], threads->rows_per_s[i]));
    }
    for (const char* leg : {"pages", "tier"}) {
      const Series& ours = *find(leg);
      bounded.push_back({ours.name, fmt::format("fio's random reads {}", depth),
                         SpreadOf(Ratios(ours.rows_per_s, ceiling)), true});
    }
  }
  return bounded;
}

// Loading at start: partitions read in order, checked, sealed into memory.
Status PrintLoad(const Options& options, const memnode::RowOrigin& stored,
                 const memnode::TablePlan& plan, std::vector<BoundedLeg>* bounded) {
  std::vector<double> ours, ceiling;
  const table::ArenaMap map = plan.Map();
  ASSIGN_OR_RETURN(AlignedBuffer memory,
                   AlignedBuffer::Allocate(map.size_bytes(), PageBacking::kTransparent));
  std::vector<memnode::PartitionPlace> places = memnode::OwnedPartitions(plan);
  for (memnode::PartitionPlace& place : places) {
    place.stored = memory.data() + map.PartitionOffset(place.layer_index, place.partition);
  }
  const double bytes = static_cast<double>(plan.OwnedRows() * plan.row_bytes);
  RETURN_IF_ERROR(memnode::LoadPartitions(stored, places, {}));  // faults the memory in
  for (int round = 0; round < options.rounds && !Interrupted(); ++round) {
    const TimePoint begin = Clock::Real().Now();
    RETURN_IF_ERROR(memnode::LoadPartitions(stored, places, {}));
    ours.push_back(bytes / Seconds(begin));
    if (FindProgram("fio").empty()) continue;
    FioJob job;
    job.rw = "read";
    job.block_bytes = 1 << 20;
    job.depth = 8;
    job.seconds = options.seconds;
    ASSIGN_OR_RETURN(const FioResult result, RunFio(job, options.folder + "/fio.data",
                                                    static_cast<uint64_t>(options.gib * 0x1p30)));
    ceiling.push_back(result.bytes_per_s);
  }
  fmt::print("load and verify: {} GB/s", SpreadText(SpreadOf(ours), 1e-9, 2));
  if (!ceiling.empty()) {
    bounded->push_back(
        {"load and verify", "fio's sequential read", SpreadOf(Ratios(ours, ceiling)), true});
    fmt::print("; fio sequential read {} GB/s; ratio {}", SpreadText(SpreadOf(ceiling), 1e-9, 2),
               SpreadText(SpreadOf(Ratios(ours, ceiling)), 1, 2));
  }
  fmt::print("\n");
  return OkStatus();
}

Status Run(const Options& options) {
  CatchInterrupts();
  fmt::print("{}\n", EnvironmentText(Environment()));
  constexpr double kV41Bytes = 768'022'850.0 * 264;
  const memnode::ProceduralSource source(
      {.layout = "v41", .rows_scale = options.gib * 0x1p30 / kV41Bytes, .seed = 1});
  const table::ClusterMap map = {.epoch = 1, .members = {"m0"}};
  const std::string pages_folder = options.folder + "/pages";
  ASSIGN_OR_RETURN(const auto store, memnode::OpenRocksStore(pages_folder));
  TimePoint begin = Clock::Real().Now();
  ASSIGN_OR_RETURN(memnode::Manifest manifest,
                   memnode::ImportProcedural(source, "1", map, "m0", *store));
  const double rows = static_cast<double>(source.rows(0) + source.rows(1));
  fmt::print("pages: {:.1f} s to make and store, {:.1f} bytes a row on disk\n", Seconds(begin),
             static_cast<double>(SizeOnDisk(pages_folder)) / rows);
  ASSIGN_OR_RETURN(const memnode::TablePlan plan, memnode::MakePlan(manifest.identity, map, "m0"));
  ASSIGN_OR_RETURN(const auto stored, memnode::StoredRows::Open(*store, std::move(manifest)));
  std::unique_ptr<RowPerKey> row_per_key;
  if (options.row_per_key) {
    begin = Clock::Real().Now();
    ASSIGN_OR_RETURN(row_per_key, RowPerKey::Load(source, options.folder + "/rows"));
    fmt::print("one key a row: {:.1f} s to make and store, {:.1f} bytes a row on disk\n",
               Seconds(begin), static_cast<double>(SizeOnDisk(options.folder + "/rows")) / rows);
  }
  if (FindProgram("fio").empty()) fmt::print("SKIPPED: fio is not installed, no ceilings\n");
  ColdBench bench(options, source, stored->reader(), row_per_key.get());
  RoundOptions rounds;
  rounds.rounds = options.rounds;
  rounds.seconds = options.seconds;
  rounds.warm_up_seconds = std::min(options.seconds, 0.3);
  ASSIGN_OR_RETURN(const std::vector<Series> series, RunRounds(bench.Legs(), rounds));
  PrintTable(options, series);
  std::vector<BoundedLeg> bounded = BoundedReads(options, series);
  RETURN_IF_ERROR(PrintLoad(options, *stored, plan, &bounded));
  return LongEnoughToJudge(rounds) ? CheckCeilings(bounded) : OkStatus();
}

}  // namespace
}  // namespace engram::bench

int main(int argc, char** argv) {
  engram::bench::Options options;
  CLI::App app("Rows from the disk beside what the disk gives", "cold_bench");
  app.add_option("--gib", options.gib, "of rows")->check(CLI::Range(0.01, 100.0));
  app.add_option("--depths", options.depths, "reads under way at once")->delimiter(',');
  app.add_option("--rounds", options.rounds)->check(CLI::Range(1, 100));
  app.add_option("--seconds", options.seconds, "a leg and round")->check(CLI::Range(0.05, 60.0));
  app.add_flag("!--no-row-per-key", options.row_per_key, "leave that comparison out");
  CLI11_PARSE(app, argc, argv);
  const engram::bench::ScratchFolder scratch;
  options.folder = scratch.path();
  const engram::Status status = engram::bench::Run(options);
  if (status.ok()) return 0;
  fmt::print(stderr, "cold_bench: {}\n", status.message());
  return 1;
}
