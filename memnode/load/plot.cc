#include "memnode/load/plot.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <thread>

#include "common/base/clock.h"
#include "common/base/owned_fd.h"
#include "common/io/read_file.h"

namespace engram::memnode::load {
namespace {

constexpr int kPanelWidth = 460;
constexpr int kHeight = 370;
constexpr Nanos kDrawingMax = std::chrono::seconds(60);
constexpr Nanos kLookEvery = std::chrono::milliseconds(5);
constexpr uint64_t kSvgBytesMax = uint64_t{64} << 20;

// A string of a gnuplot script. Between single quotes nothing is replaced or run.
std::string Quoted(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < 32; }, ' ');
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? "''" : std::string(1, c);
  return quoted + "'";
}

// The points of a series as a block of data; those that cannot be drawn are left out.
std::string DataBlock(const PlotPanel& panel, size_t index, bool* drawn) {
  std::string block = fmt::format("$series{} << EOD\n", index);
  for (const auto& [x, y] : panel.series[index].points) {
    if (!std::isfinite(x) || !std::isfinite(y)) continue;
    if ((panel.log_x && x <= 0) || (panel.log_y && y <= 0)) continue;
    block += fmt::format("{} {}\n", x, y);
    *drawn = true;
  }
  return block + "EOD\n";
}

std::string PanelScript(const PlotPanel& panel) {
  std::string script =
      fmt::format("set title {}\nset xlabel {}\nset ylabel {}\nunset logscale\n",
                  Quoted(panel.title), Quoted(panel.x_label), Quoted(panel.y_label));
  if (panel.log_x) script += "set logscale x\n";
  if (panel.log_y) script += "set logscale y\n";
  script += fmt::format("set xrange [{}:*]\nset yrange [{}:*]\n", panel.log_x ? "*" : "0",
                        panel.log_y ? "*" : "0");
  script += panel.series.size() > 1 ? "set key outside top center horizontal\n" : "unset key\n";
  std::string plots;
  bool drawn = false;
  for (size_t i = 0; i < panel.series.size(); ++i) {
    script += DataBlock(panel, i, &drawn);
    plots += fmt::format("{} $series{} with linespoints linewidth 2 title {}", i == 0 ? "" : ",", i,
                         Quoted(panel.series[i].name));
  }
  return script + (drawn ? "plot" + plots : "plot [1:10] [1:10] NaN notitle") + "\n";
}

std::string Script(const std::vector<PlotPanel>& panels, const std::string& caption) {
  const size_t columns = std::max<size_t>(1, panels.size());
  std::string script = fmt::format(
      "set terminal svg size {},{} noenhanced font 'sans-serif,12' background rgb 'white'\n"
      "set colorsequence podo\nset border 3\nset tics out nomirror\nset grid ytics\n"
      "set format '%.1s%c'\nset label 1 {} at screen 0.015,0.03 font ',11'\n"
      "set multiplot layout 1,{} margins char 10,3,6,4 spacing char 13\n",
      kPanelWidth * columns, kHeight, Quoted(caption), columns);
  for (const PlotPanel& panel : panels) script += PanelScript(panel) + "unset label 1\n";
  return script;
}

Result<OwnedFd> TextInMemory(const std::string& text) {
  OwnedFd file(::memfd_create("gnuplot", MFD_CLOEXEC));
  if (::pwrite(file.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size())) {
    return file;
  }
  return InternalError(fmt::format("{} bytes for gnuplot: {}", text.size(), std::strerror(errno)));
}

Result<std::string> ReadBack(const OwnedFd& file) {
  return io::ReadFile(fmt::format("/proc/self/fd/{}", file.get()), kSvgBytesMax);
}

// The wait status of `child`; one that has not ended in time is killed.
Result<int> WaitFor(pid_t child) {
  const TimePoint end = Clock::Real().Now() + kDrawingMax;
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (Clock::Real().Now() < end) {
      std::this_thread::sleep_for(kLookEvery);
      continue;
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
    return DeadlineExceeded("gnuplot did not end in a minute");
  }
  return status;
}

// What gnuplot draws.
Result<std::string> RunGnuplot(const std::string& script) {
  ASSIGN_OR_RETURN(const OwnedFd input, TextInMemory(script));
  ASSIGN_OR_RETURN(const OwnedFd output, TextInMemory(""));
  ASSIGN_OR_RETURN(const OwnedFd complaints, TextInMemory(""));
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_adddup2(&files, input.get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&files, output.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&files, complaints.get(), STDERR_FILENO);
  std::string name = "gnuplot", no_user_settings = "-d";
  char* const arguments[] = {name.data(), no_user_settings.data(), nullptr};
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, "gnuplot", &files, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&files);
  if (error == ENOENT) {
    return FailedPrecondition(
        "plots are drawn by gnuplot, which is not installed: install the package gnuplot-nox");
  }
  if (error != 0) return InternalError(fmt::format("gnuplot: {}", std::strerror(error)));
  ASSIGN_OR_RETURN(const int status, WaitFor(child));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return ReadBack(output);
  ASSIGN_OR_RETURN(const std::string text, ReadBack(complaints));
  return InternalError(fmt::format("gnuplot failed (wait status {}): {}", status, text));
}

}  // namespace

Status CheckGnuplot() { return RunGnuplot("").status(); }

Result<std::string> RenderSvg(const std::vector<PlotPanel>& panels, const std::string& caption) {
  return RunGnuplot(Script(panels, caption));
}

Status WritePlot(const std::string& svg, const std::string& path) {
  std::ofstream out(path);
  out << svg;
  if (out.flush()) return OkStatus();
  return InternalError(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
}

}  // namespace engram::memnode::load
