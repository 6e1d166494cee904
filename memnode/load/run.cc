#include "memnode/load/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <optional>
#include <utility>

#include "common/base/standard_streams.h"
#include "memnode/load/load_session.h"
#include "memnode/load/report_json.h"
#include "memnode/load/report_plot.h"
#include "memnode/load/report_steps.h"
#include "memnode/load/report_text.h"

namespace engram::memnode::load {
namespace {

// What the tester must be able to drive by itself, times the rate it is asked for.
constexpr double kOwnRateFactor = 5;

std::atomic<bool> interrupted = false;

// The first signal ends the run with a report, the second one the program.
void CatchInterrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted.store(true); };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void Say(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

class Program {
 public:
  explicit Program(const LoadOptions& options)
      : options_(options), environment_(ReadEnvironment(options.command_line)) {}

  Result<int> Run() {
    if (!options_.plot_file.empty()) RETURN_IF_ERROR(CheckGnuplot());
    ASSIGN_OR_RETURN(session_, LoadSession::Open(options_, &interrupted));
    Say(EnvironmentText(environment_));
    for (const std::string& line : session_->paths()) Say("node              " + line + "\n");
    if (options_.knee.enabled)
      RETURN_IF_ERROR(RunKnee());
    else if (!options_.plot_file.empty() || !options_.sweep.rates.empty() ||
             !options_.sweep.tokens.empty())
      RETURN_IF_ERROR(RunSweep());
    else
      RETURN_IF_ERROR(RunOnce());
    RETURN_IF_ERROR(WriteFiles());
    return Judge();
  }

 private:
  RunSettings OpenLoop(double steps_per_s) const {
    RunSettings settings = options_.run;
    if (settings.arrivals == Arrivals::kClosed) settings.arrivals = Arrivals::kPoisson;
    settings.steps_per_s = steps_per_s;
    return settings;
  }
  RunSettings ClosedLoop() const {
    RunSettings settings = options_.run;
    settings.arrivals = Arrivals::kClosed;
    settings.steps_per_s = 0;
    settings.outstanding = options_.depth;
    return settings;
  }

  Status SelfCheck(double steps_per_s) {
    ASSIGN_OR_RETURN(const double own, session_->MeasureOwnRate());
    if (interrupted.load()) return Cancelled("interrupted during the self-check");
    own_rate_factor_ = own / steps_per_s;
    Say(fmt::format(
        "self-check        the tester alone drives {:.0f} steps/s, {:.0f} times the {}\n", own,
        own_rate_factor_, "rate asked for"));
    if (own_rate_factor_ < kOwnRateFactor) {
      self_check_refusal_ = fmt::format(
          "the tester alone drives {:.0f} steps/s, less than {:.0f} times the rate of {:.0f}: what "
          "it would measure is itself",
          own, kOwnRateFactor, steps_per_s);
    }
    return OkStatus();
  }

  Status RunOnce() {
    if (options_.run.arrivals != Arrivals::kClosed) {
      RETURN_IF_ERROR(SelfCheck(options_.run.steps_per_s));
    }
    ASSIGN_OR_RETURN(RunFigures figures, session_->Run(options_.run));
    return Keep(std::move(figures));
  }

  Status Keep(RunFigures figures) {
    refusal_ = RefusalOf(figures);
    if (refusal_.empty()) refusal_ = self_check_refusal_;
    Say(TextReport(figures, refusal_));
    all_.push_back(figures);
    last_ = std::move(figures);
    return OkStatus();
  }

  Result<RunFigures> RunPoint(const RunSettings& settings) {
    ASSIGN_OR_RETURN(RunFigures figures, session_->Run(settings));
    all_.push_back(figures);
    return figures;
  }

  // What a closed loop reaches: bounds the rates worth trying.
  Result<double> Saturation() {
    ASSIGN_OR_RETURN(const RunFigures figures, RunPoint(ClosedLoop()));
    Say(fmt::format("closed loop       {:.0f} steps/s, {:.2f} M rows/s at depth {}\n",
                    figures.steps_per_s(), figures.rows_per_s() / 1e6,
                    figures.settings.outstanding));
    if (figures.steps == 0) {
      return Unavailable("no step came back: " + figures.first_error);
    }
    return figures.steps_per_s();
  }

  Status RunKnee() {
    KneeOptions knee = options_.knee;
    if (knee.high_steps_per_s <= 0) {
      ASSIGN_OR_RETURN(knee.high_steps_per_s, Saturation());
    }
    if (knee.low_steps_per_s <= 0) knee.low_steps_per_s = knee.high_steps_per_s / 100;
    RETURN_IF_ERROR(SelfCheck(knee.high_steps_per_s));
    Say(fmt::format("looking for the highest rate with p99 <= {:.0f} us, {:.0f}..{:.0f} steps/s\n",
                    knee.p99_us, knee.low_steps_per_s, knee.high_steps_per_s));
    ASSIGN_OR_RETURN(knee_, FindKnee(
                                knee, [this](double rate) { return RunPoint(OpenLoop(rate)); },
                                [](const Probe& probe) { Say(ProbeLine(probe)); }));
    Say(KneeText(*knee_, knee.p99_us));
    const auto shown = static_cast<size_t>(std::max(0, knee_->best));
    return Keep(knee_->probes[shown].figures);
  }

  // For a plot without points of its own.
  Result<SweepOptions> DefaultSweep() {
    SweepOptions sweep;
    ASSIGN_OR_RETURN(const double saturation, Saturation());
    for (const int percent : {10, 20, 30, 40, 50, 60, 70, 80, 90}) {
      sweep.rates.push_back(saturation * percent / 100);
    }
    if (options_.source.kind != SourceKind::kTrace) sweep.tokens = {1, 4, 16, 64, 256};
    return sweep;
  }

  Status RunSweep() {
    SweepOptions sweep = options_.sweep;
    if (sweep.rates.empty() && sweep.tokens.empty()) {
      ASSIGN_OR_RETURN(sweep, DefaultSweep());
    }
    if (!sweep.rates.empty()) {
      RETURN_IF_ERROR(SelfCheck(*std::max_element(sweep.rates.begin(), sweep.rates.end())));
    }
    for (const double rate : sweep.rates) {
      ASSIGN_OR_RETURN(RunFigures figures, RunPoint(OpenLoop(rate)));
      Say(SweepLine(figures));
      by_rate_.push_back(std::move(figures));
      if (interrupted.load()) return OkStatus();
    }
    StepShape shape = session_->shape();
    for (const int64_t tokens : sweep.tokens) {
      shape.tokens = tokens;
      RETURN_IF_ERROR(session_->Reshape(shape));
      ASSIGN_OR_RETURN(RunFigures figures, RunPoint(ClosedLoop()));
      Say(SweepLine(figures));
      by_batch_.push_back(std::move(figures));
      if (interrupted.load()) return OkStatus();
    }
    return OkStatus();
  }

  Status WriteFiles() {
    if (!options_.json_file.empty()) RETURN_IF_ERROR(WriteReport());
    if (!options_.steps_file.empty()) RETURN_IF_ERROR(WriteSteps(*last_, options_.steps_file));
    if (options_.plot_file.empty()) return OkStatus();
    std::vector<const RunFigures*> rates;
    for (const RunFigures& figures : by_rate_) rates.push_back(&figures);
    if (knee_.has_value()) {
      for (const Probe& probe : knee_->probes) rates.push_back(&probe.figures);
    }
    std::vector<const RunFigures*> batches;
    for (const RunFigures& figures : by_batch_) batches.push_back(&figures);
    ASSIGN_OR_RETURN(const std::string svg,
                     RenderSvg(LoadPanels(std::move(rates), std::move(batches)),
                               PlotCaption(all_.front(), environment_)));
    return WritePlot(svg, options_.plot_file);
  }

  Status WriteReport() const {
    json::object report;
    if (last_.has_value()) report = RunJson(*last_, refusal_);
    if (knee_.has_value()) report["knee"] = KneeJson(*knee_, options_.knee.p99_us);
    if (own_rate_factor_ > 0) report["self_check_factor"] = own_rate_factor_;
    const auto points = [](const std::vector<RunFigures>& runs) {
      json::array array;
      for (const RunFigures& figures : runs) array.push_back(PointJson(figures));
      return array;
    };
    if (!by_rate_.empty()) report["by_rate"] = points(by_rate_);
    if (!by_batch_.empty()) report["by_batch"] = points(by_batch_);
    uint64_t verified = 0;
    uint64_t wrong = 0;
    for (const RunFigures& figures : all_) {
      verified += figures.verify.rows;
      wrong += figures.verify.wrong_rows;
    }
    report["verified_rows"] = verified;  // of all runs together
    report["wrong_rows"] = wrong;
    report["environment"] = EnvironmentJson(environment_);
    report["load_average_after"] = ReadLoadAverage();
    return WriteJson(report, options_.json_file);
  }

  int Judge() const {
    for (const RunFigures& figures : all_) {
      if (figures.verify.wrong_rows == 0) continue;
      PrintError("engram-load",
                 fmt::format("{} of {} verified rows are wrong; {}", figures.verify.wrong_rows,
                             figures.verify.rows, figures.verify.first->ToString()));
      return kExitWrong;
    }
    for (const RunFigures& figures : all_) {
      // Rates at which steps fail are what a search for the knee looks for.
      if (knee_.has_value() && figures.open_loop()) continue;
      const std::string failure = FailureOf(figures);
      if (failure.empty()) continue;
      PrintError("engram-load", failure);
      return kExitFailed;
    }
    if (!refusal_.empty()) {
      PrintError("engram-load", "no latencies are reported: " + refusal_);
      return kExitRefused;
    }
    if (knee_.has_value() && knee_->best < 0) {
      PrintError("engram-load", "there is no knee: not even the lowest rate holds");
      return kExitFailed;
    }
    return kExitOk;
  }

  const LoadOptions& options_;
  const Environment environment_;
  std::unique_ptr<LoadSession> session_;
  double own_rate_factor_ = 0;
  std::string self_check_refusal_;
  std::string refusal_;  // of the last run
  std::optional<RunFigures> last_;
  std::optional<Knee> knee_;
  std::vector<RunFigures> by_rate_;
  std::vector<RunFigures> by_batch_;
  std::vector<RunFigures> all_;  // every run
};

}  // namespace

int RunLoad(const LoadOptions& options) {
  CatchInterrupts();
  Program program(options);
  const Result<int> code = program.Run();
  if (code.ok()) return *code;
  PrintError("engram-load", code.status().message());
  return kExitFailed;
}

}  // namespace engram::memnode::load
