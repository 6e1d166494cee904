// The node's side of the control connection: one thread, one Asio loop, one small state machine per
// connection that has passed the challenge, and a second thread that carries out tools' requests.
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/threads.h"
#include "common/base/worker.h"
#include "common/net/control/control.h"
#include "common/net/control/messages.h"
#include "common/net/room.h"
#include "common/net/tcp/acceptor.h"
#include "common/obs/log.h"

namespace engram::net {
namespace {

namespace asio = boost::asio;
using asio::posix::stream_descriptor;
using boost::system::error_code;

constexpr auto kGuestCheck = std::chrono::milliseconds(100);  // for guests out of time
constexpr size_t kUnwelcomedMax = 128;   // connections with no session; each may hold a frame
constexpr size_t kDescriptorsShare = 4;  // at most one of so many is for connections

class Connection;

// Other threads' way onto the loop, for as long as there is one.
class LoopGate {
 public:
  explicit LoopGate(asio::io_context& loop) : loop_(&loop) {}
  void Post(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    if (loop_ != nullptr) asio::post(*loop_, std::move(task));
  }
  void Close() {
    const std::lock_guard lock(mutex_);
    loop_ = nullptr;
  }

 private:
  std::mutex mutex_;
  asio::io_context* loop_;  // guarded by mutex_
};

// What a connection needs of its server, on the server's thread.
struct ServerContext {
  ControlServer::Callbacks callbacks;
  std::shared_ptr<LoopGate> gate;
  std::set<std::shared_ptr<Connection>> connections = {};
  std::deque<std::weak_ptr<Connection>> tools = {};  // whose requests wait
  bool carrying_out = false;                         // one of them
  uint32_t epoch = 0;                                // clients are told of
  Worker tool_thread = Worker(1);
};

std::string FrameOf(const Result<json::object>& reply) {
  std::string frame = reply.ok() ? ReplyFrame(*reply) : RefusedFrame(reply.status());
  if (frame.size() - kFramePrefixBytes <= kControlFrameBytesMax) return frame;
  return RefusedFrame(
      ResourceExhausted(fmt::format("the reply is of {} bytes, more than fits in a frame ({})",
                                    frame.size(), kControlFrameBytesMax)));
}

// hello -> pending -> answer -> silence until either side closes, or reports of damaged rows from a
// welcomed client. Shared with the handlers of the operations under way.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::io_context& loop, TcpStream stream, bool may_administer, ServerContext* context)
      : stream_(std::move(stream)),
        address_(PeerAddressOf(stream_.fd())),
        since_(Clock::Real().Now()),
        ready_(loop),
        timer_(loop),
        may_administer_(may_administer),
        context_(context) {}

  void Start() {
    stream_.SetOptions(kControlPeerTimeout);
    error_code unwatched;
    ready_.assign(stream_.fd(), unwatched);
    if (unwatched) return Close();
    Arm(kHelloTimeout);
    Move();
  }

  bool welcomed() const { return session_ != 0; }
  // Gives way first before its hello is answered, then while its answer is sent, never once
  // welcomed.
  Occupant occupant() const {
    constexpr int kToSay = 0, kToHear = 1, kWelcomed = -1;
    const bool heard = step_ == Step::kPending || step_ == Step::kAnswer;
    return {address_, welcomed() ? kWelcomed : heard ? kToHear : kToSay, since_};
  }
  // Instead of Start: refuses the connection because there is no place.
  void TurnAway() {
    step_ = Step::kAnswer;
    answer_ = RefusedFrame(ResourceExhausted("this memory node has no place for more connections"));
    Start();
  }

  uint64_t session() const { return session_; }

  // Of the epoch in force, unless the client knows it; later where its socket has no room.
  void TellEpoch() {
    if (closed_ || !takes_news_ || !answered_ || knows_epoch_ >= context_->epoch) return;
    if (news_.empty()) {
      knows_epoch_ = context_->epoch;
      news_ = NewsFrame(knows_epoch_);
    }
    SendNews();
  }

  // Idempotent; reports the session's end exactly once.
  void Close() {
    if (closed_) return;
    closed_ = true;
    timer_.cancel();
    ready_.release();  // the descriptor is the stream's
    stream_ = TcpStream();
    if (session_ != 0) context_->callbacks.on_gone(session_);
    context_->connections.erase(shared_from_this());
  }

 private:
  enum class Step { kPrefix, kHello, kPending, kAnswer, kSilence, kReportPrefix, kReport };

  // Runs until the socket would block.
  void Move() {
    while (!closed_) {
      switch (step_) {
        case Step::kPrefix:
        case Step::kHello:
        case Step::kReportPrefix:
        case Step::kReport:
          if (!Read()) return;
          break;
        case Step::kAnswer:
          if (!Write()) return;
          break;
        case Step::kPending:
        case Step::kSilence:
          return AwaitEnd();
      }
    }
  }

  // Ends an earlier wait.
  void Await(stream_descriptor::wait_type what) {
    ready_.async_wait(what, [self = shared_from_this(), wait = ++waits_](const error_code& error) {
      if (!error && wait == self->waits_) self->Move();
    });
  }

  void Arm(Nanos timeout) {
    timer_.expires_after(timeout);
    timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) self->TimeIsUp();
    });
  }

  // Also of a connection that was closed when the time was up already.
  void TimeIsUp() {
    if (closed_) return;
    if (step_ != Step::kPending) return Close();
    Reply(RefusedFrame(Unavailable("the data thread did not open the session in 5 s")));
    Move();
  }

  // The buffer grows with what arrives, so that a length alone does not take memory.
  bool Read() {
    constexpr size_t kPieceBytes = 16 * 1024;
    const size_t before = text_.size();
    text_.resize(std::min(wanted_, before + kPieceBytes));
    const std::span<char> room = std::span(text_).subspan(before);
    const ssize_t received = stream_.Receive(std::as_writable_bytes(room));
    text_.resize(before + static_cast<size_t>(std::max<ssize_t>(received, 0)));
    if (received < 0) return Close(), false;
    if (received == 0) return Await(stream_descriptor::wait_read), false;
    if (text_.size() < wanted_) return true;
    if (step_ == Step::kHello) return Answer(), true;
    if (step_ == Step::kReport) return TakeReport(), false;
    const Result<uint32_t> length = FrameLength(text_);
    const bool report = step_ == Step::kReportPrefix;
    if (!length.ok() || (report && *length > kDamagedFrameBytesMax)) return Close(), false;
    step_ = report ? Step::kReport : Step::kHello;
    wanted_ = *length;
    text_.clear();
    return true;
  }

  void Answer() {
    const std::string text = std::exchange(text_, {});
    step_ = Step::kPending;
    if (std::optional<json::object> request = ParseAdmin(text)) {
      return Administer(*std::move(request));
    }
    const Result<Hello> hello = ParseHello(text);
    if (!hello.ok()) return Reply(RefusedFrame(hello.status()));
    takes_news_ = hello->takes_news;
    Arm(kSessionTimeout);
    context_->callbacks.on_hello(*hello, [gate = context_->gate, context = context_,
                                          weak = weak_from_this()](Result<Welcome> welcome) {
      gate->Post([context, weak, welcome = std::move(welcome)] {
        const auto self = weak.lock();
        if (self != nullptr && self->step_ == Step::kPending && !self->closed_) {
          if (welcome.ok()) self->session_ = welcome->session;
          if (welcome.ok()) self->knows_epoch_ = welcome->map.epoch;
          self->Reply(welcome.ok() ? WelcomeFrame(*welcome) : RefusedFrame(welcome.status()));
          self->Move();
        } else if (welcome.ok()) {
          context->callbacks.on_gone(welcome->session);
        }
      });
    });
  }

  void Administer(json::object request) {
    if (!may_administer_) {
      return Reply(RefusedFrame(FailedPrecondition(
          "requests of tools need a secret here, because this control port is not one of the "
          "loopback address: set security.secret_file on the nodes and give the tool "
          "--secret-file (SECURITY.md)")));
    }
    if (const json::value* const command = request.if_contains("command");
        context_->callbacks.on_status && command != nullptr && *command == "status") {
      return TellStatus();
    }
    if (!context_->callbacks.on_admin) {
      return Reply(RefusedFrame(InvalidArgument("nothing can be administered here")));
    }
    std::erase_if(context_->tools, [](const auto& tool) { return tool.expired(); });
    if (context_->tools.size() >= kAdminWaitingMax) {
      return Reply(RefusedFrame(ResourceExhausted(fmt::format(
          "{} requests of tools wait at this memory node: try again", kAdminWaitingMax))));
    }
    timer_.cancel();  // it may take as long as the tool waits
    request_ = std::move(request);
    context_->tools.push_back(weak_from_this());
    CarryOutNext(context_);
  }

  void TellStatus() {
    timer_.cancel();
    context_->callbacks.on_status(
        [gate = context_->gate, weak = weak_from_this()](const Result<json::object>& reply) {
          gate->Post([weak, frame = FrameOf(reply)] {
            const auto self = weak.lock();
            if (self == nullptr || self->step_ != Step::kPending || self->closed_) return;
            self->Reply(frame);
            self->Move();
          });
        });
  }

  static void CarryOutNext(ServerContext* context) {
    while (!context->carrying_out && !context->tools.empty()) {
      const auto next = context->tools.front().lock();
      context->tools.pop_front();
      if (next != nullptr && !next->closed_) next->CarryOut();
    }
  }

  // The request of a tool that has hung up is not carried out: it may be old.
  void CarryOut() {
    if (stream_.peer_has_closed()) return Close();
    context_->carrying_out = context_->tool_thread.TryPost(
        [context = context_, weak = weak_from_this(), request = std::move(request_)] {
          std::string frame = FrameOf(context->callbacks.on_admin(request));
          context->gate->Post([context, weak, frame = std::move(frame)] {
            context->carrying_out = false;
            const auto self = weak.lock();
            if (self != nullptr && self->step_ == Step::kPending && !self->closed_) {
              self->Reply(frame);
              self->Move();
            }
            CarryOutNext(context);
          });
        });
    if (context_->carrying_out) return;
    Reply(RefusedFrame(ResourceExhausted("no thread for requests of tools can be started here")));
    Move();
  }

  // To be moved on.
  void Reply(std::string frame) {
    step_ = Step::kAnswer;
    answer_ = std::move(frame);
    error_code none;
    ready_.cancel(none);
    ++waits_;
    Arm(kHelloTimeout);
  }

  bool Write() {
    const iovec piece = {answer_.data() + written_, answer_.size() - written_};
    const ssize_t sent = stream_.Send({&piece, 1});
    if (sent < 0) return Close(), false;
    if (sent == 0) return Await(stream_descriptor::wait_write), false;
    written_ += static_cast<size_t>(sent);
    if (written_ < answer_.size()) return true;
    // A client that was refused reads why and closes; the timer ends one that does not.
    if (session_ != 0) timer_.cancel();
    answer_ = {};
    if (session_ != 0 && context_->callbacks.on_damaged) {
      AwaitReport();
    } else {
      step_ = Step::kSilence;
    }
    answered_ = session_ != 0;
    TellEpoch();
    return !closed_;
  }

  void SendNews() {
    while (!news_.empty()) {
      const iovec piece = {news_.data(), news_.size()};
      const ssize_t sent = stream_.Send({&piece, 1});
      if (sent < 0) return Close();
      if (sent == 0) {
        if (std::exchange(awaits_room_, true)) return;
        return ready_.async_wait(stream_descriptor::wait_write,
                                 [self = shared_from_this()](const error_code& error) {
                                   self->awaits_room_ = false;
                                   if (!error && !self->closed_) self->SendNews();
                                 });
      }
      news_.erase(0, static_cast<size_t>(sent));
    }
    TellEpoch();  // of one that came meanwhile
  }

  void AwaitReport() {
    step_ = Step::kReportPrefix;
    wanted_ = kFramePrefixBytes;
    text_.clear();
  }

  // Pauses afterwards: what the client sends meanwhile stays in its socket.
  void TakeReport() {
    const Result<DamagedRow> row = ParseDamaged(text_);
    if (!row.ok()) return Close();
    context_->callbacks.on_damaged(session_, *row);
    AwaitReport();
    timer_.expires_after(kDamageReportEvery);
    timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) self->Move();
    });
  }

  // The client sends nothing more: a byte ends the connection as a close does.
  void AwaitEnd() {
    std::byte byte{};
    if (stream_.Receive({&byte, 1}) != 0) return Close();
    Await(stream_descriptor::wait_read);
  }

  TcpStream stream_;
  const PeerAddress address_;
  const TimePoint since_;     // its arrival
  stream_descriptor ready_;   // waits on the stream's descriptor
  asio::steady_timer timer_;  // for everything up to the answer's last byte, and between reports
  const bool may_administer_;
  ServerContext* const context_;
  Step step_ = Step::kPrefix;
  size_t wanted_ = kFramePrefixBytes;
  std::string text_;
  json::object request_;  // of a tool, until it is carried out
  std::string answer_;
  size_t written_ = 0;
  uint64_t session_ = 0;  // 0 = not welcomed
  bool takes_news_ = false;
  bool answered_ = false;     // the welcome is sent
  uint32_t knows_epoch_ = 0;  // by the welcome or by news
  std::string news_;          // one frame, what of it is not sent
  bool awaits_room_ = false;  // to send it
  uint64_t waits_ = 0;        // the number of the latest wait
  bool closed_ = false;
};

class AsioControlServer : public ControlServer {
 public:
  explicit AsioControlServer(Callbacks callbacks)
      : loop_(1),
        arrivals_(loop_),
        check_(loop_),
        context_{std::move(callbacks), std::make_shared<LoopGate>(loop_)} {}

  ~AsioControlServer() override {
    context_.tool_thread.Stop();
    context_.gate->Close();
    asio::post(loop_, [this] { CloseAllOnLoop(); });
    if (thread_.joinable()) {
      thread_.join();
    } else {
      arrivals_.release();
    }
  }

  Status Open(const std::string& host, uint16_t port, std::shared_ptr<const Security> security) {
    TcpAcceptor::Options options;
    options.host = host;
    options.port = port;
    options.purpose = ChallengePurpose::kControl;
    options.security =
        security == nullptr ? std::make_shared<const Security>() : std::move(security);
    options.own_id = RandomEndpointId();
    options.timeout = kHelloTimeout;
    TcpAcceptor::Callbacks callbacks;
    callbacks.expects = [](const EndpointId&) { return true; };
    callbacks.arrived = [this](const EndpointId&, TcpStream stream) {
      ArrivedOnLoop(std::move(stream));
    };
    callbacks.free_one = [this] { return FreeOneOnLoop(); };
    ASSIGN_OR_RETURN(acceptor_, TcpAcceptor::Open(std::move(options), std::move(callbacks)));
    if (!acceptor_->proves_peers() && !acceptor_->loopback()) {
      obs::LogWarn(fmt::format(
          "the control port {}:{} is open to other hosts and has no secret: any of them may read "
          "rows, and requests of tools are refused (security.secret_file, SECURITY.md)",
          host, acceptor_->port()));
    }
    error_code unwatched;
    arrivals_.assign(acceptor_->fd(), unwatched);
    if (unwatched) return Unavailable("control server: epoll: " + unwatched.message());
    AcceptOnLoop();
    ASSIGN_OR_RETURN(thread_, StartThread("control", [this] { loop_.run(); }));
    return OkStatus();
  }

  uint16_t port() const override { return acceptor_->port(); }

  void TellEpoch(uint32_t epoch) override {
    context_.gate->Post([this, epoch] {
      if (epoch <= context_.epoch) return;
      context_.epoch = epoch;
      for (const auto& connection : ConnectionsOf(true)) connection->TellEpoch();
    });
  }

  void End(std::vector<uint64_t> sessions) override {
    context_.gate->Post([this, sessions = std::move(sessions)] {
      for (const auto& connection : ConnectionsOf(true)) {
        if (connection->welcomed() && std::ranges::count(sessions, connection->session()) > 0) {
          connection->Close();
        }
      }
    });
  }

 private:
  void AcceptOnLoop() {
    arrivals_.async_wait(stream_descriptor::wait_read, [this](const error_code&) {
      if (closing_) return;
      acceptor_->Progress();
      CheckGuestsOnLoop();
      AcceptOnLoop();
    });
  }

  // While time alone gives the acceptor something to do.
  void CheckGuestsOnLoop() {
    if (checking_ || !acceptor_->needs_time()) return;
    checking_ = true;
    check_.expires_after(kGuestCheck);
    check_.async_wait([this](const error_code&) {
      checking_ = false;
      if (closing_) return;
      acceptor_->Progress();
      CheckGuestsOnLoop();
    });
  }

  using Connections = std::vector<std::shared_ptr<Connection>>;

  Connections ConnectionsOf(bool also_welcomed) const {
    Connections found;
    for (const auto& one : context_.connections) {
      if (also_welcomed || !one->welcomed()) found.push_back(one);
    }
    return found;
  }
  static std::vector<Occupant> Occupants(const Connections& connections) {
    std::vector<Occupant> occupants;
    for (const auto& one : connections) occupants.push_back(one->occupant());
    return occupants;
  }
  static bool MakeRoom(const Connections& connections, const PeerAddress& address, size_t places) {
    const Place place = FindPlace(Occupants(connections), address, places);
    if (place.leaves) connections[*place.leaves]->Close();
    return place.given;
  }
  bool FreeOneOnLoop() {
    const Connections connections = ConnectionsOf(false);
    const auto leaves = FirstToLeave(Occupants(connections));
    if (leaves) connections[*leaves]->Close();
    return leaves.has_value();
  }

  void ArrivedOnLoop(TcpStream stream) {
    const PeerAddress address = PeerAddressOf(stream.fd());
    if (!MakeRoom(ConnectionsOf(false), address, kUnwelcomedMax)) return;
    const bool room = MakeRoom(ConnectionsOf(true), address, connections_max_);
    const bool may_administer = acceptor_->proves_peers() || IsOfThisHost(stream.fd());
    auto connection =
        std::make_shared<Connection>(loop_, std::move(stream), may_administer, &context_);
    context_.connections.insert(connection);
    room ? connection->Start() : connection->TurnAway();
  }

  // Both addresses count: behind a proxy or a port mapping every peer looks local to a port that is
  // open to other hosts.
  bool IsOfThisHost(int fd) const {
    sockaddr_storage peer = {};
    socklen_t bytes = sizeof(peer);
    return acceptor_->loopback() &&
           ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &bytes) == 0 && IsLoopback(peer);
  }

  // Leaves the loop without work, so that run() returns.
  void CloseAllOnLoop() {
    closing_ = true;
    arrivals_.release();
    check_.cancel();
    const auto connections = context_.connections;  // Close() erases from the set
    for (const auto& connection : connections) connection->Close();
  }

  asio::io_context loop_;
  std::unique_ptr<TcpAcceptor> acceptor_;
  stream_descriptor arrivals_;  // waits on the acceptor's descriptor
  asio::steady_timer check_;
  ServerContext context_;
  const size_t connections_max_ =
      std::min<size_t>(kControlConnectionsMax, DescriptorsMax() / kDescriptorsShare);
  bool closing_ = false;
  bool checking_ = false;  // check_ is under way
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::Start(
    const std::string& host, uint16_t port, Callbacks callbacks,
    std::shared_ptr<const Security> security) {
  auto server = std::make_unique<AsioControlServer>(std::move(callbacks));
  RETURN_IF_ERROR(server->Open(host, port, std::move(security)));
  return std::unique_ptr<ControlServer>(std::move(server));
}

}  // namespace engram::net
