// A real etcd for tests: servers on loopback ports that the system chose, in a folder of the
// test's, killed when the test ends.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <csignal>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/owned_fd.h"
#include "memnode/cluster/etcd_client.h"
#include "tests/support/certificates.h"
#include "tests/support/eventually.h"
#include "tests/support/process.h"

namespace engram::memnode {

inline constexpr char kEtcdProgram[] = "/usr/bin/etcd";
inline bool HasEtcd() { return std::filesystem::exists(kEtcdProgram); }

// Free when it was asked.
inline uint16_t FreePort() {
  const OwnedFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in where = {};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(where);
  CHECK_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&where), sizeof(where)), 0);
  CHECK_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&where), &length), 0);
  return ntohs(where.sin_port);
}

struct EtcdTls {
  std::string ca;  // clients must show a certificate of it
  testing_support::CertificateFiles server;
};

// All servers of one etcd.
class EtcdServers {
 public:
  EtcdServers(std::string folder, size_t count, std::optional<EtcdTls> tls = std::nullopt)
      : folder_(std::move(folder)), tls_(std::move(tls)) {
    for (size_t i = 0; i < count; ++i) {
      ports_.push_back(FreePort());
      peer_ports_.push_back(FreePort());
      servers_.emplace_back();
    }
    for (size_t i = 0; i < count; ++i) Start(i);
  }

  // With the data of its last run.
  void Start(size_t i) {
    std::string all;
    for (size_t j = 0; j < servers_.size(); ++j) {
      all += (j > 0 ? "," : "") + Name(j) + "=http://127.0.0.1:" + std::to_string(peer_ports_[j]);
    }
    const std::string peer = "http://127.0.0.1:" + std::to_string(peer_ports_[i]);
    const std::string client = Scheme() + address(i);
    std::vector<std::string> argv = {kEtcdProgram,
                                     "--name",
                                     Name(i),
                                     "--data-dir",
                                     folder_ + "/" + Name(i) + ".data",
                                     "--listen-client-urls",
                                     client,
                                     "--advertise-client-urls",
                                     client,
                                     "--listen-peer-urls",
                                     peer,
                                     "--initial-advertise-peer-urls",
                                     peer,
                                     "--initial-cluster",
                                     all,
                                     "--heartbeat-interval",
                                     "50",
                                     "--election-timeout",
                                     "500"};
    if (tls_) {
      argv.insert(argv.end(),
                  {"--cert-file", tls_->server.certificate, "--key-file", tls_->server.key,
                   "--client-cert-auth", "--trusted-ca-file", tls_->ca});
    }
    servers_[i] = std::make_unique<testing_support::Process>(Name(i), argv, folder_);
  }
  void Kill(size_t i) { servers_[i].reset(); }
  // Returns when each of its threads stands still: the signal takes them one after the other.
  void Stop(size_t i) {
    servers_[i]->Signal(SIGSTOP);
    const std::string tasks = "/proc/" + std::to_string(servers_[i]->pid()) + "/task";
    ASSERT_TRUE(testing_support::Eventually([&] {
      for (const auto& task : std::filesystem::directory_iterator(tasks)) {
        const std::string stat = testing_support::ReadFile(task.path() / "stat");
        if (stat.find(") T ") == std::string::npos) return false;
      }
      return true;
    }));
  }
  void Continue(size_t i) { servers_[i]->Signal(SIGCONT); }
  std::string Log(size_t i) { return servers_[i] ? servers_[i]->Stderr() : ""; }

  std::string address(size_t i) const { return "127.0.0.1:" + std::to_string(ports_[i]); }
  EtcdConfig Config() const {
    EtcdConfig config;
    for (size_t i = 0; i < ports_.size(); ++i) config.endpoints.push_back(Scheme() + address(i));
    return config;
  }

  // Once it has a leader and answers.
  void AwaitAnswers(const EtcdConfig& config) {
    const auto client = EtcdClient::Make(config);
    ASSERT_TRUE(client.ok()) << client.status().message();
    Status last;
    ASSERT_TRUE(testing_support::Eventually([&] {
      last = (*client)->Get(config.prefix + "state").status();
      return last.ok();
    })) << last.message()
        << Log(0);
  }

  // Another client's request, as JSON, to server `i`.
  Status Post(size_t i, const std::string& path, const std::string& body,
              const EtcdConfig& files = {}) {
    std::shared_ptr<const net::HttpTls> tls;
    if (tls_) {
      ASSIGN_OR_RETURN(tls, net::LoadHttpTls({files.ca_file, files.cert_file, files.key_file}));
    }
    ASSIGN_OR_RETURN(const auto exchange, net::HttpExchange::Open({address(i), tls, kEtcdTimeout}));
    ASSIGN_OR_RETURN(const auto head, exchange->Ask({"POST", path, {}, body}));
    ASSIGN_OR_RETURN(const std::string text, exchange->Body(kEtcdAnswerBytesMax));
    return head.status == 200 ? OkStatus() : InternalError(path + ": " + text);
  }
  Status Put(size_t i, const std::string& key, const std::string& value) {
    return Post(i, "/v3/kv/put",
                json::serialize(json::object{{"key", Base64(key)}, {"value", Base64(value)}}));
  }
  Status Remove(size_t i, const std::string& key) {
    return Post(i, "/v3/kv/deleterange", json::serialize(json::object{{"key", Base64(key)}}));
  }

 private:
  static std::string Name(size_t i) { return "etcd" + std::to_string(i); }
  std::string Scheme() const { return tls_ ? "https://" : "http://"; }

  const std::string folder_;
  const std::optional<EtcdTls> tls_;
  std::vector<uint16_t> ports_;
  std::vector<uint16_t> peer_ports_;
  std::vector<std::unique_ptr<testing_support::Process>> servers_;
};

}  // namespace engram::memnode
