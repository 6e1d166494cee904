// What the choices below cost, measured with Debian's RocksDB 7.8.3 and 264-byte rows:
//   one page    = one block = one disk read of 4 KiB: 3,968 bytes of page, 28 of key and lengths,
//                 8 of restarts, 5 of checksum, the rest padding
//   index       is kept in memory for every open file: about 11 bytes a page (0.3 % of the rows)
//   open files  2,016 for 63 GiB in files of 32 MiB; one that is not open costs two more reads
//   checksum    XXH3: Debian builds RocksDB's CRC-32C without the processor's instruction, which
//                 took 8 us a page, of reading and of writing alike. Our CRC-32C is in each page.
#include "memnode/store/rocks_options.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/table.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <system_error>
#include <thread>

#include "common/base/owned_fd.h"
#include "common/base/threads.h"
#include "common/obs/log.h"

namespace engram::memnode::rocks {
namespace {

constexpr rlim_t kOpenFilesMax = 16384;        // 512 GiB of pages
constexpr size_t kRecordCacheBytes = 1 << 20;  // pages are not cached here
constexpr uint64_t kWalBytesMax = 4 << 20;
constexpr int kIndexRestartInterval = 16;

// What RocksDB logs goes to ours: a file of its own on a full disk would end the process, and would
// be a trace in the folder of a store that is only read.
class ToOurLog : public rocksdb::Logger {
 public:
  ToOurLog() : Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void Logv(rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level != rocksdb::InfoLogLevel::WARN_LEVEL && level != rocksdb::InfoLogLevel::ERROR_LEVEL &&
        level != rocksdb::InfoLogLevel::FATAL_LEVEL) {
      return;
    }
    Logv(format, arguments, level != rocksdb::InfoLogLevel::WARN_LEVEL);
  }
  void Logv(const char* format, va_list arguments) override { Logv(format, arguments, false); }

 private:
  static void Logv(const char* format, va_list arguments, bool error) {
    char text[512];
    std::vsnprintf(text, sizeof(text), format, arguments);
    const std::string line = fmt::format("RocksDB: {}", text);
    error ? obs::LogWarn(line) : obs::LogDebug(line);
  }
};

// Whether files below `path` can be read past the page cache; tmpfs has none to pass.
bool HasDirectReads(const std::string& path) {
  OwnedFd fd(::open((path + "/CURRENT").c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  if (fd.get() < 0 && errno == ENOENT) {
    const std::string probe = path + "/probe";
    fd = OwnedFd(::open(probe.c_str(), O_CREAT | O_RDWR | O_DIRECT | O_CLOEXEC, 0600));
    ::unlink(probe.c_str());
  }
  return fd.get() >= 0;
}

// How many files RocksDB may keep open: half of what the process may, which is raised first.
int OpenFilesMax() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256;
  const rlim_t wanted = std::min<rlim_t>(limit.rlim_max, 2 * kOpenFilesMax);
  if (limit.rlim_cur < wanted) {
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = wanted;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  }
  return static_cast<int>(std::min(limit.rlim_cur / 2, kOpenFilesMax));
}

}  // namespace

rocksdb::ColumnFamilyOptions PagesOptions() {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;
  table.block_size = kBlockBytes;
  table.block_align = true;
  table.no_block_cache = true;
  table.index_block_restart_interval = kIndexRestartInterval;
  rocksdb::ColumnFamilyOptions options;
  // Files do not overlap, so that nothing is gained; and a damaged block would stop the store.
  options.disable_auto_compactions = true;
  options.compression = rocksdb::kNoCompression;  // rows are dense numbers: nothing to gain
  options.target_file_size_base = 1ull << 30;     // a file that is moved down stays whole
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::ColumnFamilyOptions RecordsOptions() {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;
  table.block_cache = rocksdb::NewLRUCache(kRecordCacheBytes);
  rocksdb::ColumnFamilyOptions options;
  options.write_buffer_size = kWalBytesMax;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::DBOptions StoreOptions(const std::string& path) {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.use_direct_reads = HasDirectReads(path);
  options.max_open_files = OpenFilesMax();
  // A record that was synced and is damaged later is an error, not the end of the log; one that was
  // cut short by a crash was never promised.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.max_background_jobs = 2;
  options.max_total_wal_size = kWalBytesMax;
  // A log that is missing or cut short is an error at start, once another one follows it. Records
  // that matter are in files by then (RowStore::WriteRecords).
  options.track_and_verify_wals_in_manifest = true;
  // Logs would be given 4.4 MB each beforehand, more than may be left on a disk that is nearly
  // full.
  options.allow_fallocate = false;
  options.max_manifest_file_size = 16 << 20;
  options.info_log = std::make_shared<ToOurLog>();
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  return options;
}

rocksdb::DBOptions ReadOnlyOptions(const std::string& path) {
  rocksdb::DBOptions options = StoreOptions(path);
  options.create_if_missing = false;
  options.create_missing_column_families = false;
  // Its owner may remove a log between the two looks.
  options.track_and_verify_wals_in_manifest = false;
  return options;
}

Status StartThreads(rocksdb::DBOptions& options) {
  rocksdb::Env* env = options.env;
  try {
    for (const auto priority : {rocksdb::Env::HIGH, rocksdb::Env::LOW}) {
      env->IncBackgroundThreadsIfNeeded(1, priority);
      env->Schedule([](void*) {}, nullptr, priority);  // starts all that may run
    }
  } catch (const std::system_error& error) {
    return ResourceExhausted(
        fmt::format("cannot start RocksDB's background threads: {}: raise "
                    "ulimit -u or pids.max",
                    error.code().message()));
  }
  // Open starts its threads by itself, and cannot do with fewer.
  const auto wanted = static_cast<size_t>(options.max_file_opening_threads);
  if (ThreadsToBeHad(wanted) < wanted) options.max_file_opening_threads = 1;
  ASSIGN_OR_RETURN(std::thread timer, StartThread("RocksDB's timer", [] {}));
  timer.join();
  return OkStatus();
}

rocksdb::Options WriterOptions() { return rocksdb::Options(rocksdb::DBOptions(), PagesOptions()); }

rocksdb::EnvOptions WriterEnvironment(bool direct) {
  rocksdb::EnvOptions environment;
  environment.use_direct_writes = direct;
  return environment;
}

}  // namespace engram::memnode::rocks
