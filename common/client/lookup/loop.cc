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
  uint32_t remote = 0;
  for (NodeRequest& request : step->plan().requests()) {
    const NodeView& node = view[request.node];
    if (step->purpose() == Purpose::kCaller && node.paths != nullptr) {
      request.path = node.paths->Choose(request.rows);
    }
    const Status unusable = Unusable(node, request, step->purpose());
    if (!unusable.ok()) {
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
    if (!placed.ok()) step->Fail(request, placed);
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
  RETURN_IF_ERROR(step->Plan({&lookup, 1}, deadline, Purpose::kProof));
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
    if (!node.lost.ok()) obs::LogWarn(fmt::format("memory node is back node=\"{}\"", node.label));
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
    has_posts_.store(false);
  }
  RunTasks();
  for (const StepRef& step : taken_) {
    for (uint32_t index = 0; index < step->plan().requests().size(); ++index) {
      if (step->plan().requests()[index].path != Path::kLocal) Queue(step, index);
    }
  }
  taken_.clear();
}

void LookupLoop::Queue(const StepRef& step, uint32_t index) {
  Request& request = requests_.Take(step, index);
  next_deadline_ = std::min(next_deadline_, step->deadline());
  Node& node = nodes_[request.plan().node];
  // Posted just before its node was found gone or skipped.
  const Status unusable = Unusable(node.view, request.plan(), step->purpose());
  if (!unusable.ok()) return End(request, unusable);
  IdRing& waiting = node.waiting[static_cast<size_t>(step->priority())];
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
  if (node != node_of_peer_.end()) nodes_[node->second].health.Heard(now_);
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
  const std::span<const Section> sections = request.step->plan().SectionsOf(plan);
  const auto section = std::find_if(sections.begin(), sections.end(), [&](const Section& s) {
    return s.layer_index == rows.layer_index;
  });
  const uint32_t stride = table::StoredRowBytes(context_->layout.row_format.row_bytes());
  if (section == sections.end() || rows.first >= section->count ||
      rows.row_count > section->count - rows.first || rows.stored_row_bytes != stride) {
    return DataLoss(
        fmt::format("it sent rows {} + {} of {} bytes in layer index {}, which were not "
                    "asked for",
                    rows.first, rows.row_count, rows.stored_row_bytes, rows.layer_index));
  }
  if (rows.row_count > request.rows_missing) return DataLoss("it sent more rows than asked for");
  if (rows.row_count == request.rows_missing) Uncount(request);
  std::array<const std::byte*, net::kChunkRowsMax> addresses;
  for (uint32_t i = 0; i < rows.row_count; ++i) addresses[i] = body.data() + size_t{i} * stride;
  RETURN_IF_ERROR(
      request.step->PlaceRows({*section, rows.first, std::span(addresses).first(rows.row_count)},
                              Path::kGather, CountersOf(*request.step, plan.node)));
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
  End(*request, Status(static_cast<Code>(error->code), text));
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
    }
  }
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
      next_deadline_ = std::min(next_deadline_, request.step->deadline());
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
void LookupLoop::End(Request& request, const Status& why) {
  const uint32_t node = request.plan().node;
  if (request.sent) --nodes_[node].under_way;
  Uncount(request);
  if (!why.ok()) request.step->Fail(request.plan(), why);
  const bool probe = request.step->purpose() == Purpose::kProbe;
  requests_.Free(request);
  if (probe) ProbeEnded(node, why);
}

}  // namespace engram::client
