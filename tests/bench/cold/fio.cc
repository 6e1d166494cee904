#include "tests/bench/cold/fio.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "common/io/json.h"
#include "tests/bench/harness/machine.h"
#include "tests/support/process.h"

namespace engram::bench {

Result<FioResult> RunFio(const FioJob& job, const std::string& file, uint64_t file_bytes) {
  const std::string program = FindProgram("fio");
  if (program.empty()) return NotFound("fio is not installed");
  const bool threads = job.engine == "psync";
  const std::vector<std::string> argv = {
      program,
      "--name=ceiling",
      "--filename=" + file,
      fmt::format("--size={}", file_bytes),
      "--rw=" + job.rw,
      fmt::format("--bs={}", job.block_bytes),
      "--direct=1",
      "--ioengine=" + job.engine,
      fmt::format("--iodepth={}", threads ? 1 : job.depth),
      fmt::format("--numjobs={}", threads ? job.depth : 1),
      "--thread",
      "--group_reporting",
      "--norandommap",
      "--randrepeat=0",
      fmt::format("--runtime={}ms", std::lround(job.seconds * 1000)),
      "--time_based",
      "--output-format=json"};
  const auto ended = testing_support::RunToEnd(
      argv, std::filesystem::path(file).parent_path().string(), std::chrono::minutes(3));
  if (ended.exit_code != 0) return Unavailable("fio failed: " + ended.err);
  ASSIGN_OR_RETURN(const json::value report, io::ParseJson(ended.out, "fio's report"));
  const json::value* side = nullptr;
  if (report.is_object() && report.get_object().contains("jobs")) {
    const json::array& jobs = report.get_object().at("jobs").as_array();
    if (!jobs.empty()) {
      side = jobs[0].as_object().if_contains(job.rw == "write" ? "write" : "read");
    }
  }
  if (side == nullptr || !side->is_object()) return InternalError("fio's report has no job");
  FioResult result;
  ASSIGN_OR_RETURN(result.iops, io::GetDouble(side->get_object(), "iops", "fio"));
  result.bytes_per_s = result.iops * static_cast<double>(job.block_bytes);
  return result;
}

}  // namespace engram::bench
