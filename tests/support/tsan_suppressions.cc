// RocksDB and spdlog come from the distribution and are not instrumented: the locks and reference
// counts by which their threads hand memory to each other are not seen, only the memory.
extern "C" const char* __tsan_default_suppressions() { return "race:rocksdb::\nrace:spdlog::\n"; }
