#include "tests/bench/peers/servers.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "tests/bench/harness/machine.h"

namespace engram::bench {
namespace {

// What a program says when asked for its version, one line.
std::string VersionOf(const std::string& program) {
  const ScratchFolder folder;
  const auto said = testing_support::RunToEnd({program, "--version"}, folder.path());
  return said.out.substr(0, said.out.find('\n'));
}

std::string Join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words)
    text += (text.empty() ? "" : " ") + (word.empty() ? "\"\"" : word);
  return text;
}

InstalledServer Describe(ServerSpec spec, const std::string& package) {
  InstalledServer server;
  const std::string program = FindProgram(spec.argv[0]);
  if (program.empty()) {
    server.missing = fmt::format("{} is not installed: apt-get install {}", spec.argv[0], package);
  } else {
    server.version = VersionOf(program);
  }
  server.settings = Join(spec.argv);
  if (!program.empty()) spec.argv[0] = program;
  server.spec = std::move(spec);
  return server;
}

}  // namespace

InstalledServer RedisServer() {
  ServerSpec spec;
  spec.name = "redis";
  spec.argv = {"redis-server",
               "--port",
               "{port}",
               "--bind",
               "127.0.0.1",
               "--save",
               "",
               "--appendonly",
               "no",
               "--latency-tracking",
               "no",
               "--maxmemory",
               "0"};
  spec.protocol = RedisProtocol;
  InstalledServer server = Describe(std::move(spec), "redis-server");
  server.settings += " ; one MGET a batch; one IO thread";
  return server;
}

InstalledServer MemcachedServer(uint64_t rows, bool meta) {
  constexpr uint64_t kBytesPerRow = 512;
  const uint64_t mebibytes = std::max<uint64_t>(64, rows * kBytesPerRow >> 20);
  int hash_power = 16;
  while (hash_power < 31 && (uint64_t{1} << hash_power) < rows) ++hash_power;
  ServerSpec spec;
  spec.name = meta ? "memcached-meta" : "memcached";
  spec.argv = {"memcached", "-l",
               "127.0.0.1", "-p",
               "{port}",    "-U",
               "0",         "-t",
               "1",         "-M",
               "-m",        std::to_string(mebibytes),
               "-o",        fmt::format("hashpower={}", hash_power)};
  if (meta) spec.argv.insert(spec.argv.end(), {"-R", "4096"});
  if (geteuid() == 0) spec.argv.insert(spec.argv.end(), {"-u", "root"});
  spec.protocol = meta ? MemcachedMetaProtocol : MemcachedTextProtocol;
  InstalledServer server = Describe(std::move(spec), "memcached");
  server.settings += meta ? " ; one mg a key, a batch in one send" : " ; one multi-get a batch";
  return server;
}

}  // namespace engram::bench
