// import_bench: a folder laid out as V4.1's into a node's store, beside what the disk gives.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "common/base/spread.h"
#include "common/checkpoint/table_source.h"
#include "memnode/ctl/make_model/layout_maker.h"
#include "memnode/store/rocks_store.h"
#include "memnode/upkeep/importer.h"
#include "tests/bench/harness/ceilings.h"
#include "tests/bench/harness/machine.h"
#include "tests/bench/harness/report.h"
#include "tests/bench/import/disk_ceilings.h"

namespace engram::bench {
namespace {

namespace fs = std::filesystem;
constexpr double kGb = 1e9;
constexpr double kV41Bytes = 768e6 * 264;

struct Options {
  std::string folder = ".";
  std::string source;  // empty: folder
  double gb = 2;
  int rounds = 5;  // fewer are not judged
  int threads = 0;
};

struct Figures {
  double read = 0, write = 0, copy = 0;  // bytes a second
  double import = 0;                     // bytes of rows a second
  double cpu_s_per_gb = 0;
  double import_s = 0;  // what it took
};

double CpuSeconds() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

Status ImportOnce(const std::string& model_dir, const std::string& store_dir, int threads,
                  Figures* round) {
  const auto begin = std::chrono::steady_clock::now();
  const double cpu = CpuSeconds();
  ASSIGN_OR_RETURN(const client::ModelTables model, client::LoadModelTables(model_dir, "", "1"));
  ASSIGN_OR_RETURN(const auto source, client::OpenTableSource(model_dir, model));
  ASSIGN_OR_RETURN(const auto store, memnode::OpenRocksStore(store_dir));
  const table::ClusterMap map = {.epoch = 1, .members = {"m0"}};
  ASSIGN_OR_RETURN(const memnode::TablePlan plan, memnode::MakePlan(model.identity, map, "m0"));
  memnode::ImportOptions options;
  options.threads = threads;
  RETURN_IF_ERROR(
      memnode::ImportTables(*source, model.identity, map, plan, *store, options).status());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const double bytes = static_cast<double>(plan.TotalRows()) * plan.row_bytes;
  round->import_s = took.count();
  round->import = bytes / took.count();
  round->cpu_s_per_gb = (CpuSeconds() - cpu) / (bytes / kGb);
  return OkStatus();
}

Result<Figures> Measure(const std::string& folder, const std::string& model_dir,
                        const std::vector<std::string>& shards, uint64_t bytes, int threads) {
  constexpr int kCeilingThreads = 4;
  Figures round;
  const std::string scratch = folder + "/ceiling.tmp", store = folder + "/store";
  DropCaches(shards);
  ASSIGN_OR_RETURN(round.read, ReadCeiling(shards, kCeilingThreads));
  ASSIGN_OR_RETURN(round.write, WriteCeiling(scratch, bytes, kCeilingThreads));
  ASSIGN_OR_RETURN(round.copy, CopyCeiling(shards, scratch, kCeilingThreads));
  DropCaches(shards);
  const Status imported = ImportOnce(model_dir, store, threads, &round);
  fs::remove_all(store);
  RETURN_IF_ERROR(imported);
  return round;
}

double Median(const std::vector<Figures>& rounds, double Figures::*member) {
  std::vector<double> values;
  for (const Figures& round : rounds) values.push_back(round.*member);
  return SpreadOf(std::move(values)).median;
}

void Print(const std::vector<Figures>& rounds) {
  std::vector<std::vector<std::string>> lines = {{"round", "read GB/s", "write GB/s", "both GB/s",
                                                  "import GB/s", "of the slower", "of both",
                                                  "CPU s/GB"}};
  const auto add = [&](const std::string& name, const Figures& r) {
    lines.push_back(
        {name, fmt::format("{:.2f}", r.read / kGb), fmt::format("{:.2f}", r.write / kGb),
         fmt::format("{:.2f}", r.copy / kGb), fmt::format("{:.2f}", r.import / kGb),
         fmt::format("{:.0f} %", 100 * r.import / std::min(r.read, r.write)),
         fmt::format("{:.0f} %", 100 * r.import / r.copy), fmt::format("{:.2f}", r.cpu_s_per_gb)});
  };
  for (size_t i = 0; i < rounds.size(); ++i) add(fmt::format("{}", i + 1), rounds[i]);
  Figures median;
  for (double Figures::*member : {&Figures::read, &Figures::write, &Figures::copy, &Figures::import,
                                  &Figures::cpu_s_per_gb}) {
    median.*member = Median(rounds, member);
  }
  add("median", median);
  fmt::print("{}", TableText(lines));
}

// Import beside the slower of reading and writing, which bounds it on one disk and on two. Nothing
// compares the bytes in the store. Reading and writing at once is no ceiling: it depends on how
// four threads take turns, and an import takes them otherwise.
Status Judge(const std::vector<Figures>& rounds) {
  RoundOptions run;
  run.rounds = static_cast<int>(rounds.size());
  std::vector<double> ratios;
  for (const Figures& round : rounds) {
    ratios.push_back(round.import / std::min(round.read, round.write));
    run.seconds = std::min(run.seconds, round.import_s);
  }
  if (!LongEnoughToJudge(run)) return OkStatus();
  const BoundedLeg bounded = {"import", "the slower of read and write", SpreadOf(ratios), false};
  return CheckCeilings({&bounded, 1});
}

Status Run(const Options& options) {
  const std::string folder = (fs::path(options.folder) / "import_bench.tmp").string();
  const std::string source = options.source.empty()
                                 ? folder
                                 : (fs::path(options.source) / "import_bench_source.tmp").string();
  for (const std::string& made : {folder, source}) {
    fs::remove_all(made);
    fs::create_directories(made);
  }
  ctl::MakeLayoutOptions make;
  make.layout = "v41";
  make.rows_scale = std::min(1.0, options.gb * kGb / kV41Bytes);
  make.out = source + "/model";
  ctl::MadeLayout made;
  RETURN_IF_ERROR(ctl::MakeLayoutFolder(make, &made));
  const std::vector<std::string> shards = {make.out + "/model-00047-of-00048.safetensors",
                                           make.out + "/model-00048-of-00048.safetensors"};
  fmt::print("{}\n{} rows, {:.2f} GB, load average {}\n", EnvironmentText(Environment()),
             made.table_rows, static_cast<double>(made.table_bytes) / kGb, LoadAverage());
  std::vector<Figures> rounds;
  Status status;
  for (int i = 0; i < options.rounds && status.ok() && !Interrupted(); ++i) {
    const auto round = Measure(folder, make.out, shards, made.table_bytes, options.threads);
    status = round.status();
    if (round.ok()) rounds.push_back(*round);
  }
  fs::remove_all(folder);
  fs::remove_all(source);
  if (!rounds.empty()) Print(rounds);
  fmt::print("load average {}\n", LoadAverage());
  return status.ok() ? Judge(rounds) : status;
}

}  // namespace
}  // namespace engram::bench

int main(int argc, char** argv) {
  engram::bench::Options options;
  CLI::App app("Import of a folder beside the disk's own speed");
  app.add_option("--folder", options.folder, "on the disk to measure")->capture_default_str();
  app.add_option("--source", options.source,
                 "where the model is read from, when that is another disk, or memory");
  app.add_option("--gb", options.gb, "of rows; needs three times as much disk")
      ->check(CLI::Range(0.01, 200.0))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds)->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--threads", options.threads, "of the import; 0: four a CPU");
  CLI11_PARSE(app, argc, argv);
  engram::bench::CatchInterrupts();
  const engram::Status status = engram::bench::Run(options);
  if (!status.ok()) fmt::print(stderr, "import_bench: {}\n", status.message());
  return status.ok() ? 0 : 1;
}
