#include "memnode/cluster/etcd_client.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/io/read_file.h"

namespace engram::memnode {
namespace {

constexpr int kHttpOk = 200;
constexpr size_t kPasswordBytesMax = 4096;
constexpr size_t kRefusalBytesMax = 64 * 1024;
constexpr char kRangePath[] = "/v3/kv/range";
constexpr char kTxnPath[] = "/v3/kv/txn";
constexpr char kWatchPath[] = "/v3/watch";
constexpr char kAuthenticatePath[] = "/v3/auth/authenticate";

Nanos Until(TimePoint end) {
  return std::max<Nanos>(end - std::chrono::steady_clock::now(), Nanos(0));
}

// etcd's end of the keys with a prefix: the prefix with its last byte one higher. A prefix of this
// program ends with '/'.
std::string EndOfPrefix(std::string prefix) {
  CHECK(prefix.ends_with('/')) << prefix;
  ++prefix.back();
  return prefix;
}

Result<std::string> ReadPassword(const std::string& path) {
  struct stat about = {};
  if (::stat(path.c_str(), &about) != 0) {
    return NotFound(fmt::format("etcd.password_file {}: {}", path, std::strerror(errno)));
  }
  if ((about.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return FailedPrecondition(
        fmt::format("etcd.password_file {} is open to other users (mode {:03o}): chmod 600 {}",
                    path, about.st_mode & 0777, path));
  }
  auto text = io::ReadFile(path, kPasswordBytesMax);
  if (!text.ok()) return text.status().WithContext("etcd.password_file");
  if (text->ends_with('\n')) text->pop_back();
  if (!text->empty()) return text;
  return InvalidArgument(fmt::format("etcd.password_file {} is empty", path));
}

// What etcd's gRPC codes mean here; `final_word`: its other servers would say the same.
Status StatusOf(const EtcdRefusal& refusal, bool& final_word) {
  constexpr int kInvalidArgument = 3;
  constexpr int kNotFound = 5;
  constexpr int kPermissionDenied = 7;
  constexpr int kResourceExhausted = 8;
  constexpr int kFailedPrecondition = 9;
  constexpr int kUnauthenticated = 16;
  final_word = true;
  switch (refusal.grpc_code) {
    case kInvalidArgument:
    case kNotFound:
    case kPermissionDenied:
    case kFailedPrecondition:
    case kUnauthenticated:
      return FailedPrecondition(refusal.message);
    case kResourceExhausted:
      return ResourceExhausted(refusal.message);
    default:
      final_word = false;
      return Unavailable(refusal.message);
  }
}

std::string UrlOf(const EtcdEndpoint& endpoint, const char* path) {
  return fmt::format("{}://{}{}", endpoint.tls ? "https" : "http", endpoint.address, path);
}

}  // namespace

Result<std::unique_ptr<EtcdClient>> EtcdClient::Make(const EtcdConfig& config, Nanos timeout) {
  CHECK(config.used()) << "etcd.endpoints is empty";
  std::vector<EtcdEndpoint> endpoints = config.Endpoints();
  std::string password;
  if (!config.user.empty()) {
    ASSIGN_OR_RETURN(password, ReadPassword(config.password_file));
  }
  std::shared_ptr<const net::HttpTls> tls;
  if (std::any_of(endpoints.begin(), endpoints.end(), [](const auto& e) { return e.tls; })) {
    auto loaded = net::LoadHttpTls({config.ca_file, config.cert_file, config.key_file});
    if (!loaded.ok()) return loaded.status().WithContext("etcd");
    tls = *std::move(loaded);
  }
  return std::unique_ptr<EtcdClient>(new EtcdClient(std::move(endpoints), std::move(tls),
                                                    config.user, std::move(password), timeout));
}

EtcdClient::EtcdClient(std::vector<EtcdEndpoint> endpoints, std::shared_ptr<const net::HttpTls> tls,
                       std::string user, std::string password, Nanos timeout)
    : endpoints_(std::move(endpoints)),
      tls_(std::move(tls)),
      user_(std::move(user)),
      password_(std::move(password)),
      timeout_(timeout) {}

// A server that hangs costs its share of the time, not all of it.
template <typename T, typename AskServer>
Result<T> EtcdClient::AskInTurn(const Question& question, const AskServer& ask) {
  const TimePoint end = std::chrono::steady_clock::now() + timeout_;
  const size_t first = preferred_;
  std::vector<std::string> failures;
  for (size_t i = 0; i < endpoints_.size(); ++i) {
    const size_t index = (first + i) % endpoints_.size();
    const Nanos share = Until(end) / (endpoints_.size() - i);
    Turn turn = {endpoints_[index], std::chrono::steady_clock::now() + share};
    Result<T> answer = ask(turn);
    if (answer.ok()) {
      preferred_ = index;
      return answer;
    }
    const Status failed =
        answer.status().WithContext("etcd: " + UrlOf(turn.endpoint, question.path));
    if (turn.final_word || failed.code() == Code::kCancelled) return failed;
    preferred_ = (index + 1) % endpoints_.size();
    if (turn.asked && question.once) {
      return Unavailable(failed.message() + ": it was asked, and may have done it");
    }
    failures.push_back(failed.message());
  }
  return Unavailable(fmt::format("{}", fmt::join(failures, "; ")));
}

template <typename T, typename Parse>
Result<T> EtcdClient::Call(const Question& question, const Parse& parse) {
  return AskInTurn<T>(question, [&](Turn& turn) -> Result<T> {
    ASSIGN_OR_RETURN(const auto exchange, AskWithToken(question, turn));
    ASSIGN_OR_RETURN(const std::string text, exchange->Body(kEtcdAnswerBytesMax));
    return parse(text);
  });
}

// Tokens end when they are not used, when etcd starts again and when its users change.
Result<std::unique_ptr<net::HttpExchange>> EtcdClient::AskWithToken(const Question& question,
                                                                    Turn& turn) {
  if (user_.empty()) return Ask(question, turn);
  for (bool again = true;; again = false) {
    ASSIGN_OR_RETURN(turn.token, Token(question, turn));
    auto exchange = Ask(question, turn);
    if (exchange.ok() || !turn.old_token) return exchange;
    ForgetToken(turn.token);
    if (!again) return exchange;
    // It did nothing.
    turn.asked = turn.old_token = turn.final_word = false;
  }
}

Result<std::unique_ptr<net::HttpExchange>> EtcdClient::Ask(const Question& question, Turn& turn) {
  ASSIGN_OR_RETURN(
      std::unique_ptr<net::HttpExchange> exchange,
      net::HttpExchange::Open({turn.endpoint.address, turn.endpoint.tls ? tls_ : nullptr,
                               Until(turn.end), question.stop}));
  net::HttpQuestion asked = {"POST", question.path, {}, json::serialize(question.body)};
  asked.headers = {{"Content-Type", "application/json"},
                   // A server without a leader says so, and does not wait for one.
                   {"Grpc-Metadata-hasleader", "true"}};
  if (!turn.token.empty()) asked.headers.emplace_back("Authorization", turn.token);
  turn.asked = true;
  ASSIGN_OR_RETURN(const net::HttpResponse head, exchange->Ask(asked));
  if (head.status == kHttpOk) return exchange;
  ASSIGN_OR_RETURN(const std::string text, exchange->Body(kRefusalBytesMax));
  const EtcdRefusal refusal = ParseEtcdRefusal(head.status, text);
  turn.old_token = RefusesEtcdToken(refusal.grpc_code, refusal.message);
  return StatusOf(refusal, turn.final_word);
}

Result<std::string> EtcdClient::Token(const Question& question, Turn& turn) {
  {
    const std::lock_guard lock(mutex_);
    if (!token_.empty()) return token_;
  }
  const Question login = {
      kAuthenticatePath, {{"name", user_}, {"password", password_}}, question.stop};
  const std::string context = fmt::format("asking for a token of user {}", user_);
  Turn login_turn = {turn.endpoint, turn.end};
  const auto exchange = Ask(login, login_turn);
  turn.final_word = login_turn.final_word;
  if (!exchange.ok()) return exchange.status().WithContext(context);
  const auto text = (*exchange)->Body(kRefusalBytesMax);
  if (!text.ok()) return text.status().WithContext(context);
  auto token = ParseEtcdToken(*text);
  if (!token.ok()) return token.status().WithContext(context);
  const std::lock_guard lock(mutex_);
  token_ = *token;
  return token;
}

void EtcdClient::ForgetToken(const std::string& token) {
  const std::lock_guard lock(mutex_);
  if (token_ == token) token_.clear();
}

Result<EtcdRange> EtcdClient::Range(json::object request, const std::string& prefix,
                                    std::stop_token stop) {
  const auto parse = [&](const std::string& text) -> Result<EtcdRange> {
    ASSIGN_OR_RETURN(EtcdRange range, ParseEtcdRange(text));
    for (const EtcdValue& value : range.values) {
      if (!value.key.starts_with(prefix)) {
        return InvalidArgument(fmt::format("asked for {}, it tells of another key", prefix));
      }
    }
    return range;
  };
  return Call<EtcdRange>({kRangePath, std::move(request), std::move(stop)}, parse);
}

Result<EtcdRange> EtcdClient::Get(const std::string& key, std::stop_token stop) {
  return Range({{"key", Base64(key)}}, key, std::move(stop));
}

Result<EtcdRange> EtcdClient::GetRevision(const std::string& key, std::stop_token stop) {
  return Range({{"key", Base64(key)}, {"keys_only", true}}, key, std::move(stop));
}

Result<EtcdRange> EtcdClient::GetKeys(const std::string& prefix, std::stop_token stop) {
  return Range({{"key", Base64(prefix)},
                {"range_end", Base64(EndOfPrefix(prefix))},
                {"limit", std::to_string(kEtcdValuesMax)},
                {"keys_only", true}},
               prefix, std::move(stop));
}

Result<EtcdSwap> EtcdClient::CompareAndSwap(const Swap& swap, std::stop_token stop) {
  const std::string key = Base64(swap.key);
  json::array changes = {{{"request_put", {{"key", key}, {"value", Base64(swap.value)}}}}};
  if (!swap.remove_prefix.empty()) {
    json::object removed = {{"key", Base64(swap.remove_prefix)},
                            {"range_end", Base64(EndOfPrefix(swap.remove_prefix))}};
    changes.push_back(json::object{{"request_delete_range", std::move(removed)}});
  }
  json::object compare = {{"target", "MOD"},
                          {"result", "EQUAL"},
                          {"key", key},
                          {"mod_revision", std::to_string(swap.mod_revision)}};
  json::object request = {{"compare", json::array{std::move(compare)}},
                          {"success", std::move(changes)},
                          {"failure", json::array{{{"request_range", {{"key", key}}}}}}};
  return Call<EtcdSwap>({kTxnPath, std::move(request), std::move(stop), true}, &ParseEtcdSwap);
}

Result<std::unique_ptr<EtcdWatch>> EtcdClient::Watch(const std::string& key, int64_t revision,
                                                     std::stop_token stop) {
  json::object create = {{"key", Base64(key)}, {"start_revision", std::to_string(revision)}};
  const Question question = {kWatchPath, {{"create_request", std::move(create)}}, std::move(stop)};
  return AskInTurn<std::unique_ptr<EtcdWatch>>(
      question, [&](Turn& turn) { return BeginWatch(question, key, turn); });
}

Result<std::unique_ptr<EtcdWatch>> EtcdClient::BeginWatch(const Question& question,
                                                          const std::string& key, Turn& turn) {
  for (bool again = true;; again = false) {
    ASSIGN_OR_RETURN(auto exchange, AskWithToken(question, turn));
    std::unique_ptr<EtcdWatch> watch(
        new EtcdWatch(UrlOf(turn.endpoint, kWatchPath), key, std::move(exchange)));
    ASSIGN_OR_RETURN(const std::optional<EtcdNews> news, watch->NextNews(Until(turn.end)));
    if (!news) return DeadlineExceeded("reading the answer: none in time");
    if (news->created && news->cancelled.empty()) return watch;
    // A watch's refusal is in its answer, which begins well.
    if (!again || !RefusesEtcdToken(kGrpcUnknown, news->cancelled)) {
      return Unavailable(news->cancelled.empty() ? "no watch was made" : news->cancelled);
    }
    ForgetToken(turn.token);
  }
}

Result<std::vector<EtcdNews::Event>> EtcdWatch::Next(Nanos wait) {
  Result<std::optional<EtcdNews>> news = NextNews(wait);
  if (!news.ok()) return news.status().WithContext("etcd: " + asked_);
  if (!*news) return std::vector<EtcdNews::Event>();
  const std::string cancelled = fmt::format("etcd: {}: {}", asked_, (*news)->cancelled);
  if ((*news)->compacted) return OutOfRange(cancelled);
  if (!(*news)->cancelled.empty()) return Unavailable(cancelled);
  for (const EtcdNews::Event& event : (*news)->events) {
    if (event.value.key != key_) {
      return Unavailable(fmt::format("etcd: {}: it tells of another key than {}", asked_, key_));
    }
  }
  return std::move((*news)->events);
}

Result<std::optional<EtcdNews>> EtcdWatch::NextNews(Nanos wait) {
  const TimePoint end = std::chrono::steady_clock::now() + wait;
  for (size_t searched = 0;;) {
    const size_t line_end = received_.find('\n', searched);
    if (line_end != std::string::npos) {
      const std::string line = received_.substr(0, line_end);
      received_.erase(0, line_end + 1);
      searched = 0;
      if (line.empty()) continue;
      ASSIGN_OR_RETURN(EtcdNews news, ParseEtcdNews(line));
      return std::optional<EtcdNews>(std::move(news));
    }
    if (received_.size() > kEtcdAnswerBytesMax) {
      return ResourceExhausted(fmt::format("a line of more than {} bytes", kEtcdAnswerBytesMax));
    }
    ASSIGN_OR_RETURN(const std::string piece, exchange_->Piece(Until(end)));
    if (piece.empty()) return std::optional<EtcdNews>();
    searched = received_.size();
    received_ += piece;
  }
}

}  // namespace engram::memnode
