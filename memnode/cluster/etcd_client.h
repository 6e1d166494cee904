// A client of etcd's v3 JSON gateway (etcd 3.4 or newer; etcd_answers.h reads what it says), for
// the few requests that a membership makes of it. Each has a connection of its own, goes to the
// server that answered last and on to the others when that one does not answer.
//
// Any thread, several at once. Each call ends within the timeout. Its error is one, and says what
// each server was asked and why that failed: UNAVAILABLE: none gave an answer that is etcd's;
// FAILED_PRECONDITION: etcd refuses (user, password, permissions); RESOURCE_EXHAUSTED: its space is
// used up; CANCELLED: stopped.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/io/json.h"
#include "common/net/http/exchange.h"
#include "memnode/cluster/etcd_answers.h"
#include "memnode/cluster/etcd_config.h"

namespace engram::memnode {

inline constexpr Nanos kEtcdTimeout = std::chrono::seconds(3);
// etcd takes values of 1.5 MiB; base64 makes 2 MiB of them.
inline constexpr uint64_t kEtcdAnswerBytesMax = uint64_t{4} << 20;

// The changes of one key. One thread at a time.
class EtcdWatch {
 public:
  // What changed, or nothing when nothing comes within `wait`. After an error the watch is over:
  // what changed since must be read. OUT_OF_RANGE: etcd compacted those revisions away.
  Result<std::vector<EtcdNews::Event>> Next(Nanos wait);

 private:
  friend class EtcdClient;
  EtcdWatch(std::string asked, std::string key, std::unique_ptr<net::HttpExchange> exchange)
      : asked_(std::move(asked)), key_(std::move(key)), exchange_(std::move(exchange)) {}
  // One answer, or nothing within `wait`.
  Result<std::optional<EtcdNews>> NextNews(Nanos wait);

  const std::string asked_;  // for messages
  const std::string key_;
  std::unique_ptr<net::HttpExchange> exchange_;
  std::string received_;  // the beginning of a line
};

class EtcdClient {
 public:
  // Reads the files of a valid config that has endpoints, and contacts no server. Errors name the
  // file.
  static Result<std::unique_ptr<EtcdClient>> Make(const EtcdConfig& config,
                                                  Nanos timeout = kEtcdTimeout);

  // All that reads sees every write that was acknowledged before (linearizable).
  Result<EtcdRange> Get(const std::string& key, std::stop_token stop = {});
  // Without the value.
  Result<EtcdRange> GetRevision(const std::string& key, std::stop_token stop = {});
  // The keys that begin with `prefix`, without values; at most kEtcdValuesMax.
  Result<EtcdRange> GetKeys(const std::string& prefix, std::stop_token stop = {});

  struct Swap {
    std::string key;
    int64_t mod_revision = 0;  // that the key must be of; 0: absent
    std::string value;
    std::string remove_prefix = {};  // keys that go at once with it; empty: none
  };
  // Not repeated on another server once it was sent: UNAVAILABLE says whether it may have happened.
  Result<EtcdSwap> CompareAndSwap(const Swap& swap, std::stop_token stop = {});

  // From `revision` (etcd's own) on.
  Result<std::unique_ptr<EtcdWatch>> Watch(const std::string& key, int64_t revision,
                                           std::stop_token stop = {});

 private:
  struct Question {
    const char* path;
    json::object body;
    std::stop_token stop;
    bool once = false;  // not again once it may have reached a server
  };
  // One server's turn.
  struct Turn {
    const EtcdEndpoint& endpoint;
    TimePoint end;
    std::string token = {};   // that was sent
    bool asked = false;       // the question may have reached the server
    bool old_token = false;   // which is why it refused
    bool final_word = false;  // etcd refuses, and each of its servers would
  };

  EtcdClient(std::vector<EtcdEndpoint> endpoints, std::shared_ptr<const net::HttpTls> tls,
             std::string user, std::string password, Nanos timeout);
  template <typename T, typename AskServer>
  Result<T> AskInTurn(const Question& question, const AskServer& ask);
  template <typename T, typename Parse>
  Result<T> Call(const Question& question, const Parse& parse);
  Result<EtcdRange> Range(json::object request, const std::string& prefix, std::stop_token stop);
  Result<std::unique_ptr<EtcdWatch>> BeginWatch(const Question& question, const std::string& key,
                                                Turn& turn);
  // Both: an answer of status 200, whose body is to be read.
  Result<std::unique_ptr<net::HttpExchange>> AskWithToken(const Question& question, Turn& turn);
  Result<std::unique_ptr<net::HttpExchange>> Ask(const Question& question, Turn& turn);
  Result<std::string> Token(const Question& question, Turn& turn);
  void ForgetToken(const std::string& token);

  const std::vector<EtcdEndpoint> endpoints_;
  const std::shared_ptr<const net::HttpTls> tls_;
  const std::string user_;
  const std::string password_;
  const Nanos timeout_;
  std::atomic<size_t> preferred_ = 0;  // of endpoints_
  std::mutex mutex_;
  std::string token_;  // guarded by mutex_; empty: none yet
};

}  // namespace engram::memnode
