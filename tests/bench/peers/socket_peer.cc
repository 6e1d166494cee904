#include "tests/bench/peers/socket_peer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "common/table/procedural.h"
#include "tests/bench/harness/machine.h"

namespace engram::bench {
namespace {

constexpr int kStartAttempts = 3;  // another process may take the port chosen
constexpr auto kStartLimit = std::chrono::seconds(10);
constexpr auto kStartPoll = std::chrono::milliseconds(20);
constexpr uint64_t kStoresPerSend = 512;

class SocketReader : public BatchReader {
 public:
  SocketReader(PollingSocket& socket, const Protocol& protocol, size_t depth, size_t row_bytes)
      : socket_(socket), protocol_(protocol) {
    for (size_t i = 0; i < depth; ++i) parsers_.push_back(protocol.MakeParser(row_bytes));
  }
  Status Begin(const Batch& batch, std::span<std::byte> out) override {
    parsers_[begun_++ % parsers_.size()]->Begin(batch, out);
    request_.clear();
    protocol_.AppendRead(batch, &request_);
    return socket_.Send(request_);
  }
  Status End() override { return socket_.Receive(*parsers_[ended_++ % parsers_.size()]); }

 private:
  PollingSocket& socket_;
  const Protocol& protocol_;
  std::vector<std::unique_ptr<BatchParser>> parsers_;
  std::string request_;
  size_t begun_ = 0;
  size_t ended_ = 0;
};

std::vector<std::string> CommandLine(const ServerSpec& spec, int cpu, int port) {
  std::vector<std::string> argv;
  for (const std::string& argument : spec.argv) {
    argv.push_back(argument == "{port}" ? std::to_string(port) : argument);
  }
  return PinnedCommand(cpu, std::move(argv));
}

Result<PollingSocket> ConnectWhenUp(testing_support::Process& process, int port) {
  const auto end = std::chrono::steady_clock::now() + kStartLimit;
  while (true) {
    auto socket = PollingSocket::Connect(port);
    if (socket.ok() || std::chrono::steady_clock::now() >= end || Interrupted()) return socket;
    if (!process.Running()) {
      return Unavailable("the server ended: " + process.Stderr() + process.Stdout());
    }
    std::this_thread::sleep_for(kStartPoll);
  }
}

}  // namespace

SocketPeer::SocketPeer(std::unique_ptr<testing_support::Process> process,
                       std::unique_ptr<Protocol> protocol, PollingSocket socket)
    : process_(std::move(process)), protocol_(std::move(protocol)), socket_(std::move(socket)) {}

Result<std::unique_ptr<SocketPeer>> SocketPeer::Start(const ServerSpec& spec, int cpu,
                                                      const std::string& work_dir) {
  Status last;
  for (int attempt = 0; attempt < kStartAttempts && !Interrupted(); ++attempt) {
    ASSIGN_OR_RETURN(const int port, FreeLoopbackPort());
    auto process = std::make_unique<testing_support::Process>(
        spec.name, CommandLine(spec, cpu, port), work_dir);
    auto socket = ConnectWhenUp(*process, port);
    if (socket.ok() && process->Running()) {
      return std::unique_ptr<SocketPeer>(
          new SocketPeer(std::move(process), spec.protocol(), std::move(*socket)));
    }
    last = socket.ok() ? Unavailable("the server ended as it started") : socket.status();
  }
  if (Interrupted()) return Cancelled("interrupted");
  return last.WithContext(fmt::format("starting {}", spec.argv[0]));
}

Status SocketPeer::Fill(const table::TableLayout& layout, uint64_t seed) {
  std::vector<std::byte> value(layout.row_format.row_bytes());
  std::string request;
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const uint64_t rows = layout.layers[layer].total_rows;
    for (uint64_t first = 0; first < rows; first += kStoresPerSend) {
      const uint64_t count = std::min(kStoresPerSend, rows - first);
      request.clear();
      for (uint64_t row = first; row < first + count; ++row) {
        table::FillProceduralRow(layout.row_format, seed, layer, row, value);
        protocol_->AppendStore(layer, row, value, &request);
      }
      RETURN_IF_ERROR(socket_.Send(request));
      LinesParser stored(std::string(protocol_->stored_line()), count);
      RETURN_IF_ERROR(socket_.Receive(stored));
    }
  }
  memory_bytes_ = ResidentBytes(process_->pid());
  return OkStatus();
}

std::unique_ptr<BatchReader> SocketPeer::MakeReader(size_t depth, size_t row_bytes) {
  return std::make_unique<SocketReader>(socket_, *protocol_, depth, row_bytes);
}

}  // namespace engram::bench
