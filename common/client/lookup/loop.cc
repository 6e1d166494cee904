#include "common/client/lookup/loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/threads.h"
#include "common/obs/log.h"
#include "common/table/row_check.h"

namespace engram::client {
namespace {

constexpr Nanos kSleepMax = std::chrono::milliseconds(20);
constexpr Nanos kDrainTimeout = std::chrono::seconds(5);
constexpr Nanos kControlCheckEvery = std::chrono::milliseconds(20);
constexpr size_t kReportsPerCheck = 1;  // 50 a second

}  // namespace

LookupLoop::LookupLoop(Options options, std::shared_ptr<const PlanContext> context, uint32_t epoch,
                       std::unique_ptr<net::Transport> transport, const Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      context_(std::move(context)),
      epoch_(epoch),
      steps_(std::make_shared<StepPool>(context_, clock, options_.spin)),
      counters_(context_->node_labels.size()),
      nodes_(context_->node_labels.size()),
      requests_(options_.requests_max),
      transport_(std::move(transport)) {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    nodes_[i].label = context_->node_labels[i];
    nodes_[i].view.gone = Unavailable("is not connected yet");
    for (IdRing& ring : nodes_[i].waiting) ring = IdRing(options_.requests_max);
  }
  ChooseProbes();
  PublishView();
  next_control_check_ = last_event_ = clock_.Now();
  transport_->SetHandler(this);
  Result<std::thread> started = StartThread("lookups", [this] { Run(); });
  started_ = started.status();
  if (started.ok()) thread_ = *std::move(started);
}

LookupLoop::~LookupLoop() {
  stopping_.store(true);
  transport_->WakeUp();
  if (thread_.joinable()) {
    thread_.join();
  } else {
    Shutdown();
  }
}

std::shared_ptr<const ClusterView> LookupLoop::view() const {
  const std::lock_guard lock(mutex_);
  return view_;
}

void LookupLoop::PublishView() {
  auto view = std::make_shared<ClusterView>();
  for (const Node& node : nodes_) view->push_back(node.view);
  const std::lock_guard lock(mutex_);
  view_ = std::move(view);
}

NodeCosts LookupLoop::Costs(const ClusterView& view) const {
  constexpr uint64_t kOverAWire = uint64_t{1} << 40;
  constexpr uint64_t kSuspect = uint64_t{1} << 50;
  NodeCosts costs(view.size());
  for (size_t i = 0; i < view.size(); ++i) {
    const NodeView& node = view[i];
    const bool local =
        node.paths != nullptr && node.paths->Choose(context_->request_rows_max) == Path::kLocal;
    if (!node.gone.ok() || (!local && !node.skipped.ok())) costs[i] += kCannotServe;
    if (!local) costs[i] += kOverAWire;
    if (!local && IsSuspect(node)) costs[i] += kSuspect;
    costs[i] += counters_[i].rows_under_way.load(std::memory_order_relaxed);
  }
  return costs;
}

NodeCosts LookupLoop::CostsOfOnly(uint32_t node) const {
  NodeCosts costs(nodes_.size(), kCannotServe);
  costs[node] = 0;
  return costs;
}

// Why the request would not be answered; ok: it may be.
Status LookupLoop::Unusable(const NodeView& node, const NodeRequest& request,
                            Purpose purpose) const {
  if (purpose == Purpose::kProof) {
    return node.paths != nullptr ? OkStatus() : Unavailable("is not connected");
  }
  if (!node.gone.ok()) return node.gone;
  if (purpose == Purpose::kProbe || request.path == Path::kLocal) return OkStatus();
  return node.skipped;
}

Status LookupLoop::Post(const StepRef& step, const ClusterView& view) {
  const bool has_other_owners =
      context_->owners.replicas() > 1 && step->purpose() == Purpose::kCaller;
  uint32_t remote = 0;
  for (NodeRequest& request : step->plan().requests()) {
    const NodeView& node = view[request.node];
    if (step->purpose() == Purpose::kCaller && node.paths != nullptr) {
      request.path = node.paths->Choose(request.rows);
    }
    const Status unusable = Unusable(node, request, step->purpose());
    // One that is skipped, though other owners were to be had: the loop asks those.
    const bool skipped_only = has_other_owners && node.gone.ok();
    if (!unusable.ok() && !skipped_only) {
      return Status(unusable.code(), fmt::format("memory node {}: {}; {} rows wanted from it",
                                                 context_->node_labels[request.node],
                                                 unusable.message(), request.rows));
    }
    remote += request.path == Path::kLocal ? 0 : 1;
  }
  if (remote > 0) RETURN_IF_ERROR(Admit(step, remote));
  // The others' answers come while these are copied.
  for (const NodeRequest& request : step->plan().requests()) {
    if (request.path != Path::kLocal) continue;
    const Status placed =
        PlaceLocally(*step, request, *view[request.node].paths, CountersOf(*step, request.node));
    if (placed.ok()) continue;
    if (!has_other_owners) {
      step->Fail(request, placed);
      continue;
    }
    {
      const std::lock_guard lock(mutex_);
      failures_.push_back({step, &request, placed});
      has_posts_.store(true);
    }
    transport_->WakeUp();
  }
  return OkStatus();
}

Status LookupLoop::Admit(const StepRef& step, uint32_t requests) {
  {
    const std::lock_guard lock(mutex_);
    const uint32_t before = requests_under_way_.load();
    if (before + requests > options_.requests_max) {
      return ResourceExhausted(
          fmt::format("{} lookup requests are under way, {} more would pass "
                      "the limit of {}",
                      before, requests, options_.requests_max));
    }
    requests_under_way_.fetch_add(requests);
    posts_.push_back(step);
    has_posts_.store(true);
  }
  if (sleeping_.load()) transport_->WakeUp();
  return OkStatus();
}

Status LookupLoop::Ask(uint32_t node, Path path, const LayerLookup& lookup, TimePoint deadline) {
  const StepRef step = steps_->Take();
  RETURN_IF_ERROR(step->Plan({&lookup, 1}, deadline, Purpose::kProof, CostsOfOnly(node)));
  for (NodeRequest& request : step->plan().requests()) {
    CHECK_EQ(request.node, node);
    request.path = path;
  }
  Ticket ticket = Step::MakeTicket(step);
  RETURN_IF_ERROR(Post(step, *view()));
  return ticket.Wait(lookup.layer_index);
}

Status LookupLoop::OnLoop(std::function<Status()> task) {
  std::packaged_task<Status()> packaged(std::move(task));
  std::future<Status> done = packaged.get_future();
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return Cancelled("the client closed");
    tasks_.push_back(std::move(packaged));
    has_posts_.store(true);
  }
  transport_->WakeUp();
  return done.get();
}

void LookupLoop::RunTasks() {
  while (true) {
    std::packaged_task<Status()> task;
    {
      const std::lock_guard lock(mutex_);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

Status LookupLoop::Attach(uint32_t index, NodeConnection connection) {
  return OnLoop([&]() -> Status {
    Node& node = nodes_[index];
    CHECK(node.control == nullptr) << node.label;
    const net::Welcome& welcome = connection.control->welcome();
    ASSIGN_OR_RETURN(const net::PeerId peer, transport_->Attach(std::move(connection.data)));
    const Status opened = OpenOneSided(welcome, node.label, *transport_, peer, connection.paths);
    if (!opened.ok()) {
      transport_->Disconnect(peer);
      return opened;
    }
    node.peer = peer;
    node_of_peer_[peer] = index;
    node.window = welcome.window == 0 ? options_.requests_max : welcome.window;
    node.control = std::move(connection.control);
    node.health = NodeHealth();
    node.view.paths = std::make_shared<const NodePaths>(std::move(connection.paths));
    PublishView();
    return OkStatus();
  });
}

Status LookupLoop::Open(uint32_t index, const PathCosts& costs) {
  return OnLoop([&]() -> Status {
    Node& node = nodes_[index];
    if (node.control == nullptr) return node.lost;
    auto paths = std::make_shared<NodePaths>(*node.view.paths);
    paths->costs = costs;
    node.open = true;
    if (!node.lost.ok()) {
      obs::LogWarn(fmt::format("memory node is back node=\"{}\"", node.label));
      reconnects_.fetch_add(1);
    }
    node.lost = OkStatus();
    node.view = NodeView();
    node.view.paths = std::move(paths);
    next_probe_ = TimePoint();
    PublishView();
    return OkStatus();
  });
}

void LookupLoop::GiveUp(uint32_t index, const Status& why) {
  const Status told = OnLoop([&]() -> Status {
    Node& node = nodes_[index];
    CHECK(!node.open) << node.label;
    LoseNode(index, why);
    if (node.lost.ok()) node.lost = why;
    node.view.gone = Unavailable(fmt::format("is gone: {}; it is dialled again, the last time: {}",
                                             node.lost.message(), why.message()));
    PublishView();
    return OkStatus();
  });
  (void)told.ok();  // a loop that has ended has nothing to show any more
}

void LookupLoop::Run() {
  while (!stopping_.load()) {
    const TimePoint now = clock_.Now();
    if (RunOnce(now) == 0) Sleep(now, next_deadline_);
  }
  Shutdown();
}

int LookupLoop::RunOnce(TimePoint now) {
  now_ = now;
  if (has_posts_.load()) TakePosts();
  if (options_.probe_timeout > Nanos::zero() && now >= next_probe_) SendProbes(now);
  SendQueued();
  const int events = transport_->Progress();
  if (events > 0) last_event_ = now;
  if (now >= next_deadline_) Expire(now);
  if (now >= next_control_check_) CheckControls(now);
  return events;
}

void LookupLoop::Shutdown() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  TakePosts();
  for (Request& request : requests_.slots()) {
    if (request.id != 0) End(request, Cancelled("the client closed"));
  }
  for (const Node& node : nodes_) {
    if (node.peer != 0) transport_->Disconnect(node.peer);
  }
  // A send or read that completed after its buffer is gone would touch freed memory.
  const TimePoint deadline = Clock::Real().Now() + kDrainTimeout;
  while (free_buffers_.size() < buffers_.size() && Clock::Real().Now() < deadline) {
    transport_->Progress();
  }
  CHECK_EQ(free_buffers_.size(), buffers_.size()) << "sends outlive Disconnect";
}

void LookupLoop::Sleep(TimePoint now, TimePoint until) {
  if (requests_under_way_.load(std::memory_order_relaxed) > 0 && now - last_event_ < options_.spin)
    return;
  until = std::min(until, next_control_check_);
  if (until <= now) return;
  sleeping_.store(true);
  // A post before that store has set has_posts_; one after it sees us sleeping.
  if (!has_posts_.load()) transport_->Wait(std::min<Nanos>(until - now, kSleepMax));
  sleeping_.store(false);
}

void LookupLoop::TakePosts() {
  {
    const std::lock_guard lock(mutex_);
    taken_.swap(posts_);
    taken_failures_.swap(failures_);
    has_posts_.store(false);
  }
  RunTasks();
  for (const StepRef& step : taken_) {
    for (const NodeRequest& what : step->plan().requests()) {
      if (what.path != Path::kLocal) Queue(Take(step, what));
    }
  }
  taken_.clear();
  TakeFailures();
}

Request& LookupLoop::Take(const StepRef& step, const NodeRequest& what) {
  counters_[what.node].rows_under_way.fetch_add(what.rows, std::memory_order_relaxed);
  Request& request = requests_.Take(step, what);
  request.sent_at = now_;
  next_deadline_ = std::min(next_deadline_, step->deadline());
  LookAfter(request, kStoppedAfter);
  return request;
}

void LookupLoop::Queue(Request& request) {
  const Step& step = *request.step;
  Node& node = nodes_[request.plan().node];
  // Posted just before its node was found gone or skipped.
  const Status unusable = Unusable(node.view, request.plan(), step.purpose());
  if (!unusable.ok()) return End(request, unusable);
  IdRing& waiting = node.waiting[static_cast<size_t>(step.priority())];
  if (waiting.full()) {
    queued_ -= waiting.Compact([this](uint64_t id) { return requests_.Find(id) != nullptr; });
  }
  waiting.PushBack(request.id);
  ++queued_;
}

void LookupLoop::OnMessage(net::PeerId from, std::span<const std::byte> header,
                           std::span<const std::byte> body) {
  const auto node = node_of_peer_.find(from);
  const Result<net::MessageType> type = net::PeekType(header);
  if (node != node_of_peer_.end()) {
    nodes_[node->second].health.Heard(now_);
    if (nodes_[node->second].view.suspect_until != TimePoint()) Suspect(node->second, TimePoint());
  }
  if (node != node_of_peer_.end() && type.ok() && *type == net::MessageType::kRows) {
    OnRows(node->second, header, body);
  } else if (node != node_of_peer_.end() && type.ok() && *type == net::MessageType::kLookupError) {
    OnError(node->second, header, body);
  } else {
    messages_dropped_.fetch_add(1);
  }
}

void LookupLoop::OnRows(uint32_t node, std::span<const std::byte> header,
                        std::span<const std::byte> body) {
  net::RowsHeader rows;
  if (header.size() != sizeof(rows)) {
    messages_dropped_.fetch_add(1);
    return;
  }
  std::memcpy(&rows, header.data(), sizeof(rows));
  Request* request = requests_.Find(rows.request_id);
  if (request == nullptr || request->plan().node != node) {
    messages_dropped_.fetch_add(1);
    return;
  }
  const Status placed = PlaceChunk(*request, header, body);
  if (!placed.ok() || request->rows_missing == 0) End(*request, placed);
}

// The chunk, compared with what was asked, goes to its places.
Status LookupLoop::PlaceChunk(Request& request, std::span<const std::byte> header,
                              std::span<const std::byte> body) {
  ASSIGN_OR_RETURN(const net::RowsHeader rows, net::ParseRows(header, body));
  const NodeRequest& plan = request.plan();
  const std::span<const Section> sections = plan.sections;
  const auto section = std::find_if(sections.begin(), sections.end(), [&](const Section& s) {
    return s.layer_index == rows.layer_index;
  });
  const uint32_t stride = table::StoredRowBytes(context_->layout.row_format.row_bytes());
  if (section == sections.end() || rows.first >= section->rows.size() ||
      rows.row_count > section->rows.size() - rows.first || rows.stored_row_bytes != stride) {
    return DataLoss(
        fmt::format("it sent rows {} + {} of {} bytes in layer index {}, which were not "
                    "asked for",
                    rows.first, rows.row_count, rows.stored_row_bytes, rows.layer_index));
  }
  if (rows.row_count > request.rows_missing) return DataLoss("it sent more rows than asked for");
  if (rows.row_count == request.rows_missing) Uncount(request);
  std::array<const std::byte*, net::kChunkRowsMax> addresses;
  for (uint32_t i = 0; i < rows.row_count; ++i) addresses[i] = body.data() + size_t{i} * stride;
  RETURN_IF_ERROR(request.step->PlaceRows(
      {plan.node, *section, rows.first, std::span(addresses).first(rows.row_count)}, Path::kGather,
      CountersOf(*request.step, plan.node)));
  request.rows_missing -= rows.row_count;
  return OkStatus();
}

void LookupLoop::OnError(uint32_t node, std::span<const std::byte> header,
                         std::span<const std::byte> body) {
  const Result<net::LookupErrorHeader> error = net::ParseLookupError(header, body);
  Request* request = error.ok() ? requests_.Find(error->request_id) : nullptr;
  if (request == nullptr || request->plan().node != node) {
    messages_dropped_.fetch_add(1);
    return;
  }
  const size_t text_bytes = std::min<size_t>(body.size(), 1024);
  const std::string text(reinterpret_cast<const char*>(body.data()), text_bytes);
  const Status why(static_cast<Code>(error->code), text);
  if (why.code() == Code::kCancelled) Leave(node, why);
  request = requests_.Find(error->request_id);
  if (request != nullptr) End(*request, why);
}

// The node is shutting down: it takes no new requests. Its connection is closed once what it took
// before is answered (CheckControls), so that it need not wait for this client.
void LookupLoop::Leave(uint32_t index, const Status& why) {
  Node& node = nodes_[index];
  if (!node.open || node.leaving) return;
  node.leaving = true;
  node.view.gone = Unavailable(fmt::format("is gone: {}; it is dialled again", why.message()));
  PublishView();
  for (Request& request : requests_.slots()) {
    if (request.id == 0 || request.plan().node != index || request.sent) continue;
    End(request, node.view.gone);
  }
}

void LookupLoop::OnPeerLost(net::PeerId peer, const Status& why) {
  const auto node = node_of_peer_.find(peer);
  if (node != node_of_peer_.end()) LoseNode(node->second, why);
}

void LookupLoop::CheckControls(TimePoint now) {
  next_control_check_ = now + kControlCheckEvery;
  if (context_->damage->any()) TellDamage();
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    if (nodes_[node].control != nullptr && nodes_[node].control->Lost()) {
      LoseNode(node, Unavailable("it closed the control connection"));
    } else if (nodes_[node].leaving && nodes_[node].under_way == 0) {
      LoseNode(node, Unavailable("it is shutting down"));
    } else if (nodes_[node].control != nullptr) {
      HearEpoch(nodes_[node].control->told_epoch());
    }
  }
}

void LookupLoop::HearEpoch(uint32_t epoch) {
  if (epoch <= std::max(epoch_, told_epoch_)) return;
  told_epoch_ = epoch;
  if (options_.on_later_epoch) options_.on_later_epoch(epoch);
}

// What a node cannot take now is dropped: the row is reported again when it is asked for again.
void LookupLoop::TellDamage() {
  for (const DamageReports::Report& report : context_->damage->Take(kReportsPerCheck)) {
    net::ControlClient* const control = nodes_[report.node].control.get();
    if (control != nullptr) control->ReportDamaged(report.row);
  }
}

// The data connection goes, and the control connection with it, which ends the node's session.
void LookupLoop::LoseNode(uint32_t index, const Status& why) {
  Node& node = nodes_[index];
  if (node.control == nullptr) return;
  const bool was_open = std::exchange(node.open, false);
  node.leaving = false;
  if (was_open || node.lost.ok()) node.lost = why;
  node.view = NodeView();
  node.view.gone =
      Unavailable(fmt::format("is gone: {}; it is dialled again", node.lost.message()));
  node_of_peer_.erase(node.peer);
  transport_->Disconnect(std::exchange(node.peer, 0));
  node.control.reset();
  PublishView();
  for (Request& request : requests_.slots()) {
    if (request.id != 0 && request.plan().node == index) End(request, node.view.gone);
  }
  if (!was_open) return;
  obs::LogWarn(fmt::format("memory node is gone node=\"{}\" why={}", node.label, why.message()));
  if (options_.on_lost) options_.on_lost(index);
}

void LookupLoop::Expire(TimePoint now) {
  next_deadline_ = TimePoint::max();
  for (Request& request : requests_.slots()) {
    if (request.id == 0) continue;
    if (request.step->deadline() > now) {
      const TimePoint deadline = request.step->deadline();
      if (request.next_look <= now) LookAtLate(request, now);
      next_deadline_ = std::min({next_deadline_, deadline, request.next_look});
      continue;
    }
    const bool missed = request.sent && request.step->purpose() == Purpose::kCaller;
    const uint32_t node = request.plan().node;
    const TimePoint sent_at = request.sent_at;
    End(request, DeadlineExceeded("no complete answer before the deadline"));
    if (missed) LookupMissed(node, sent_at);
  }
}

// Before the caller is woken: its next Submit must find the room this request took.
void LookupLoop::Uncount(Request& request) {
  if (std::exchange(request.counted, false)) requests_under_way_.fetch_sub(1);
}

// What still waits in a queue, or is being read, finds its id gone.
void LookupLoop::End(Request& request, Status why) {
  const uint32_t node = request.plan().node;
  counters_[node].rows_under_way.fetch_sub(request.plan().rows, std::memory_order_relaxed);
  if (request.sent) --nodes_[node].under_way;
  Uncount(request);
  const Request ended = request;
  requests_.Free(request);
  Request* const beside = requests_.Find(ended.hedge_of);
  if (beside != nullptr) --beside->hedges;
  const bool caller = ended.step->purpose() == Purpose::kCaller;
  if (why.ok() && caller && ended.sent) {
    nodes_[node].late.Add(now_ - ended.sent_at);
    hedges_allowed_ = std::min(hedges_allowed_ + kHedgeShare, kHedgesAtOnce);
  }
  if (why.ok() && context_->owners.replicas() > 1 && !ended.step->Complete(ended.plan())) {
    why = DataLoss("it sent a row twice and left out another");
  }
  if (why.ok() && beside != nullptr) hedges_won_.fetch_add(1);
  // Where the same rows are also asked of another node, the last request to fail tells.
  const bool last = beside == nullptr && ended.hedges == 0;
  if (!why.ok() && last && !(caller && AskElsewhere(ended.step, ended, nullptr))) {
    ended.step->Fail(ended.plan(), why);
  }
  if (ended.step->purpose() == Purpose::kProbe) ProbeEnded(node, why);
}

}  // namespace engram::client
