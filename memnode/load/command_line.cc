#include "memnode/load/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <utility>

namespace engram::memnode::load {
namespace {

// Flags that are not yet what the options hold.
struct Flags {
  std::string net_devices;
  std::string lookup_path;
  std::string transport;
  std::string secret_file;
  std::string arrivals = "poisson";
  std::string source = "uniform";
  std::string priority = "decode";
  double tokens_per_s = 0;
  int64_t outstanding = 64;
  int64_t verify_every = 1;
  double verify_rate = -1;  // not given
  double slip_tolerance_us = 50;
};

void AddService(CLI::App& app, LoadOptions& options, Flags& flags) {
  TableOptions& tables = options.tables;
  app.add_option("--model", tables.model_dir, "model folder");
  app.add_option("--model-name", tables.model_name, "table set's name; default: the folder's");
  app.add_option("--model-version", tables.model_version,
                 "table set's version; default: the one that is published");
  app.add_option("--procedural", tables.procedural.layout, "v41 or paper: tables made by rule")
      ->check(CLI::IsMember({"v41", "paper"}));
  app.add_option("--rows-scale", tables.procedural.rows_scale, "share of their rows")
      ->check(CLI::Range(1e-6, 1.0));
  app.add_option("--table-seed", tables.procedural.seed, "of their content");
  app.add_option("--memnodes", options.service.memnodes,
                 "host:port,... ; none: tables in this process")
      ->delimiter(',');
  app.add_option("--lookup-path", flags.lookup_path, "auto, local, gather or one_sided");
  app.add_option("--transport", flags.transport, "tcp or ucx");
  app.add_option("--net-devices", flags.net_devices, "UCX network devices");
  app.add_option("--secret-file", flags.secret_file, "file with the cluster's secret");
  app.add_option("--set", options.service.sets,
                 "one setting of the lookup client, a.b=value; may be repeated")
      ->expected(1)
      ->take_all();
  app.add_option("--node-metrics", options.node_metrics,
                 "host:port,... of the nodes' /metrics, for their CPU time")
      ->delimiter(',');
}

void AddSteps(CLI::App& app, LoadOptions& options, Flags& flags) {
  SourceOptions& source = options.source;
  app.add_option("--sequences", options.shape.sequences, "sequences a step")
      ->check(CLI::Range(int64_t{1}, static_cast<int64_t>(kPositionsMax)));
  app.add_option("--tokens", options.shape.tokens, "tokens a sequence a step")
      ->check(CLI::Range(1, 4096));
  app.add_option("--source", flags.source, "uniform, zipf, text or trace")
      ->check(CLI::IsMember({"uniform", "zipf", "text", "trace"}));
  app.add_option("--theta", source.theta, "of zipf")->check(CLI::Range(0.01, 10.0));
  app.add_option("--zipf-ngrams", source.zipf_ngrams, "n-grams zipf draws from")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 50));
  app.add_option("--text", source.text_files, "text files, walked through the model's tokenizer");
  app.add_option("--trace", source.trace_file, "recorded steps");
  app.add_option("--record", source.record_file, "write the steps made here, for --trace");
  app.add_option("--pool-mb", source.pool_mib, "MiB of row ids made ahead of time")
      ->check(CLI::Range(1, 65536));
  app.add_option("--seed", source.seed, "of row ids and arrivals");
}

void AddRun(CLI::App& app, LoadOptions& options, Flags& flags) {
  RunSettings& run = options.run;
  app.add_option("--rate", run.steps_per_s, "open loop: steps/s; without: closed loop")
      ->check(CLI::Range(0.01, 1e6));
  app.add_option("--tokens-per-s", flags.tokens_per_s, "open loop: tokens/s, all sequences")
      ->check(CLI::Range(0.01, 1e10));
  app.add_option("--arrivals", flags.arrivals, "poisson or constant")
      ->check(CLI::IsMember({"poisson", "constant"}));
  app.add_option("--outstanding", flags.outstanding, "steps outstanding at most, open loop")
      ->check(CLI::Range(1, 512));
  app.add_option("--depth", options.depth, "steps outstanding, closed loop")
      ->check(CLI::Range(1, 64));
  app.add_option("--seconds", run.seconds, "timed part of a run")->check(CLI::Range(0.1, 3600.0));
  app.add_option("--warm-up", run.warm_up_seconds, "seconds before it")
      ->check(CLI::Range(0.0, 600.0));
  app.add_option("--deadline-ms", run.deadline_ms, "of each step, from when it is sent")
      ->check(CLI::Range(1, 60000));
  app.add_option("--layer-deadline-us", run.layer_deadlines_us,
                 "when each layer is needed after the intended time, a,b,...")
      ->delimiter(',')
      ->check(CLI::Range(1.0, 6e7));
  app.add_option("--priority", flags.priority, "decode, prefill or hint")
      ->check(CLI::IsMember({"decode", "prefill", "hint"}));
  app.add_option("--verify", flags.verify_rate, "share of the steps compared; default 1, 0: none")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--verify-every", flags.verify_every, "compare every n-th step; 0: none")
      ->check(CLI::Range(0, 1000000));
  app.add_option("--buffer-mb", run.buffer_mib, "MiB of rows under way or being compared")
      ->check(CLI::Range(1, 65536));
  app.add_option("--slip-tolerance-us", flags.slip_tolerance_us,
                 "a step sent later by the tester's fault counts as slipped")
      ->check(CLI::Range(1.0, 1e6));
}

void AddResults(CLI::App& app, LoadOptions& options) {
  KneeOptions& knee = options.knee;
  app.add_flag("--find-knee", knee.enabled, "find the highest rate that holds --p99-us");
  app.add_option("--p99-us", knee.p99_us, "bound of the step latency's p99")
      ->check(CLI::Range(1.0, 1e8));
  app.add_option("--knee-low", knee.low_steps_per_s, "lowest steps/s; default: a hundredth of high")
      ->check(CLI::Range(0.01, 1e6));
  app.add_option("--knee-high", knee.high_steps_per_s,
                 "highest steps/s; default: what a closed loop reaches")
      ->check(CLI::Range(0.01, 1e6));
  app.add_option("--knee-probes", knee.probes_max, "runs at most")->check(CLI::Range(2, 40));
  app.add_option("--sweep-rates", options.sweep.rates, "an open-loop run at each, steps/s,...")
      ->delimiter(',')
      ->check(CLI::Range(0.01, 1e6));
  app.add_option("--sweep-tokens", options.sweep.tokens, "a closed-loop run with each --tokens,...")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  app.add_option("--plot", options.plot_file,
                 "SVG of the knee's probes or the sweep; without either: of a sweep to saturation "
                 "(drawn by gnuplot)");
  app.add_option("--json", options.json_file, "write the figures here");
  app.add_option("--steps", options.steps_file,
                 "write each step of one run here as CSV: when it was due, latency, outcome");
  app.add_flag("--progress", options.progress, "live line also where stderr is no terminal");
}

void Choose(const Flags& flags, LoadOptions& options) {
  RunSettings& run = options.run;
  if (flags.tokens_per_s > 0) {
    run.steps_per_s = flags.tokens_per_s / static_cast<double>(options.shape.positions());
  }
  if (run.steps_per_s > 0) {
    run.arrivals = flags.arrivals == "constant" ? Arrivals::kConstant : Arrivals::kPoisson;
  }
  const bool open = run.steps_per_s > 0 || options.knee.enabled || !options.sweep.rates.empty() ||
                    !options.plot_file.empty();
  run.outstanding = open ? flags.outstanding : options.depth;
  run.seed = options.source.seed;
  run.keep_steps = !options.steps_file.empty();
  run.slip_tolerance = Nanos(static_cast<int64_t>(flags.slip_tolerance_us * 1e3));
  run.verify_rate = flags.verify_every == 0 ? 0 : 1.0 / static_cast<double>(flags.verify_every);
  if (flags.verify_rate >= 0) run.verify_rate = flags.verify_rate;
  run.priority = flags.priority == "decode"    ? client::Priority::kDecode
                 : flags.priority == "prefill" ? client::Priority::kPrefill
                                               : client::Priority::kHint;
  options.source.kind = flags.source == "zipf"    ? SourceKind::kZipf
                        : flags.source == "text"  ? SourceKind::kText
                        : flags.source == "trace" ? SourceKind::kTrace
                                                  : SourceKind::kUniform;
  if (flags.source == "uniform" && !options.source.trace_file.empty()) {
    options.source.kind = SourceKind::kTrace;
  }
  if (flags.source == "uniform" && !options.source.text_files.empty()) {
    options.source.kind = SourceKind::kText;
  }
  for (const auto& [key, value] : {std::pair{"lookup.path", flags.lookup_path},
                                   {"transport.kind", flags.transport},
                                   {"ucx.net_devices", flags.net_devices},
                                   {"security.secret_file", flags.secret_file}}) {
    if (!value.empty()) options.service.sets.push_back(fmt::format("{}={}", key, value));
  }
}

Status Check(const LoadOptions& options, bool both_rates, bool arrivals_given) {
  const bool procedural = !options.tables.procedural.layout.empty();
  if (procedural == !options.tables.model_dir.empty()) {
    return InvalidArgument("give one of --model and --procedural");
  }
  if (both_rates) return InvalidArgument("give one of --rate and --tokens-per-s");
  if (options.run.steps_per_s > 1e6) {
    return InvalidArgument(fmt::format(
        "{:.0f} steps/s intended, at most 1000000: make steps larger", options.run.steps_per_s));
  }
  if (arrivals_given && options.run.arrivals == Arrivals::kClosed && !options.knee.enabled &&
      options.sweep.rates.empty()) {
    return InvalidArgument("--arrivals is of an open loop: give --rate or --tokens-per-s");
  }
  if (options.shape.positions() > kPositionsMax) {
    return InvalidArgument(fmt::format("a step of {} sequences of {} tokens, at most {} together",
                                       options.shape.sequences, options.shape.tokens,
                                       kPositionsMax));
  }
  const SourceOptions& source = options.source;
  if (source.kind == SourceKind::kText && source.text_files.empty()) {
    return InvalidArgument("--source text needs --text FILE");
  }
  if (source.kind == SourceKind::kTrace && source.trace_file.empty()) {
    return InvalidArgument("--source trace needs --trace FILE");
  }
  if (source.kind == SourceKind::kTrace && !options.sweep.tokens.empty()) {
    return InvalidArgument("--sweep-tokens with a trace: its steps have the size they have");
  }
  const KneeOptions& knee = options.knee;
  if (!options.steps_file.empty() &&
      (knee.enabled || !options.plot_file.empty() || !options.sweep.rates.empty() ||
       !options.sweep.tokens.empty())) {
    return InvalidArgument("--steps is of one run: no --find-knee, sweep or plot beside it");
  }
  if (knee.enabled && knee.high_steps_per_s > 0 && knee.low_steps_per_s >= knee.high_steps_per_s) {
    return InvalidArgument(fmt::format("--knee-low {} is not below --knee-high {}",
                                       knee.low_steps_per_s, knee.high_steps_per_s));
  }
  if (knee.enabled && !options.sweep.rates.empty()) {
    return InvalidArgument("give one of --find-knee and --sweep-rates");
  }
  return OkStatus();
}

std::string Joined(int argc, const char* const* argv) {
  std::string line;
  for (int i = 0; i < argc; ++i) line += fmt::format("{}{}", i == 0 ? "" : " ", argv[i]);
  return line;
}

}  // namespace

Result<std::optional<LoadOptions>> ParseCommandLine(int argc, const char* const* argv,
                                                    std::string* help) {
  CLI::App app(
      "Lookup load on memory nodes: open loop at a rate, or closed loop for saturation; rows are "
      "compared byte for byte");
  LoadOptions options;
  Flags flags;
  AddService(app, options, flags);
  AddSteps(app, options, flags);
  AddRun(app, options, flags);
  AddResults(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return InvalidArgument(error.what());
    *help = app.help();
    return std::optional<LoadOptions>();
  }
  const bool both_rates = options.run.steps_per_s > 0 && flags.tokens_per_s > 0;
  options.command_line = Joined(argc, argv);
  Choose(flags, options);
  RETURN_IF_ERROR(Check(options, both_rates, app.count("--arrivals") > 0));
  return std::optional<LoadOptions>(std::move(options));
}

}  // namespace engram::memnode::load
