#include "tests/common/client/lookup/fake_node.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "common/base/check.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/net/wire_encode.h"
#include "common/table/row_check.h"

namespace engram::client {

table::TableLayout MakeTestLayout() {
  table::TableLayout layout;
  layout.max_ngram_size = 3;
  layout.heads_per_order = 2;
  layout.compressed_vocab_size = 100;
  layout.pad_compressed = 2;
  layout.row_format = {table::RowEncoding::kFp8Scaled, 256};
  layout.layers.push_back({1, {3, 5, 7}, {1000, 1000, 1000, 1000}, {0, 1000, 2000, 3000}, 4000});
  layout.layers.push_back({9, {3, 5, 9}, {1500, 1500, 1500, 1500}, {0, 1500, 3000, 4500}, 6000});
  return layout;
}

table::OwnerTable TestOwners(const table::ClusterMap& map) {
  std::vector<table::LayerPartitions> cuts;
  const table::TableLayout layout = MakeTestLayout();
  for (const table::LayerLayout& layer : layout.layers) {
    cuts.push_back(table::CutLayer(layer.total_rows, layout.row_format.row_bytes()));
  }
  return {map, cuts};
}

bool OwnsRow(const table::OwnerTable& owners, size_t member, uint32_t layer_index, uint64_t row) {
  const table::TableLayout layout = MakeTestLayout();
  const auto cut =
      table::CutLayer(layout.layers[layer_index].total_rows, layout.row_format.row_bytes());
  return owners.Owns(static_cast<uint16_t>(member), layer_index, cut.PartitionOf(row));
}

void FillRow(uint32_t layer_index, uint64_t row, std::span<std::byte> out) {
  Rng rng(Mix64(layer_index, row));
  for (std::byte& byte : out) byte = static_cast<std::byte>(rng.NextU64());
}

FakeNode::FakeNode(Behaviour behaviour, std::unique_ptr<net::Transport> transport)
    : behaviour_(std::move(behaviour)),
      owners_(TestOwners(behaviour_.map)),
      self_(static_cast<size_t>(std::ranges::find(behaviour_.map.members, behaviour_.member) -
                                behaviour_.map.members.begin())),
      transport_address_(transport->address()),
      settings_(transport->settings()),
      transport_(std::move(transport)) {
  transport_->SetHandler(this);
  net::ControlServer::Callbacks callbacks;
  callbacks.on_hello = [this](const net::Hello& hello, const auto& answer) {
    answer(OnHello(hello));
  };
  callbacks.on_gone = [this](uint64_t session) { OnGone(session); };
  auto control = net::ControlServer::Start("127.0.0.1", behaviour_.port, std::move(callbacks));
  CHECK(control.ok()) << control.status().ToString();
  control_ = std::move(*control);
  thread_ = std::thread([this] { Run(); });
}

FakeNode::~FakeNode() {
  control_.reset();  // before the thread that its callbacks wait for
  stopping_ = true;
  transport_->WakeUp();
  thread_.join();
  transport_->SetHandler(nullptr);
}

std::string FakeNode::address() const { return fmt::format("127.0.0.1:{}", control_->port()); }

Result<net::Welcome> FakeNode::OnHello(const net::Hello& hello) {
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [session, peer] : peers_) {
      if (peer.first == hello.address) return AlreadyExists("its session before has not ended yet");
    }
  }
  ++hellos_;
  RETURN_IF_ERROR(behaviour_.refuse_hellos);
  if (hello.epoch != 0 && hello.epoch != behaviour_.map.epoch) {
    return FailedPrecondition("another epoch is asked for");
  }
  table::TableIdentity identity = behaviour_.identity;
  uint64_t generation = behaviour_.generation;
  const std::string& asked = hello.identity.version;
  if (asked.empty() && !behaviour_.published) return FailedPrecondition("nothing is published");
  if (std::ranges::count(behaviour_.prepared_versions, asked) > 0) {
    identity.version = asked;
    generation = 0;
  }
  RETURN_IF_ERROR(table::CheckSameIdentity(identity, hello.identity, "the client"));
  std::future<Result<net::PeerId>> connected;
  {
    const std::lock_guard lock(mutex_);
    to_connect_.emplace_back(hello.address, std::promise<Result<net::PeerId>>());
    connected = to_connect_.back().second.get_future();
  }
  transport_->WakeUp();
  ASSIGN_OR_RETURN(const net::PeerId peer, connected.get());
  net::Welcome welcome;
  welcome.member = behaviour_.member;
  welcome.map = behaviour_.map;
  welcome.identity = identity;
  welcome.generation = generation;
  welcome.session = next_session_++;
  {
    const std::lock_guard lock(mutex_);
    peers_[welcome.session] = {hello.address, peer};
  }
  welcome.settings = settings_;
  welcome.address = transport_address_;
  std::vector<std::byte> bytes(layout_.row_format.row_bytes());
  for (uint32_t layer = 0; layer < layout_.layers.size(); ++layer) {
    const uint64_t row = KnownRow(layer);
    FillRow(layer, row, bytes);
    Sha256 sha;
    sha.Update(std::span<const std::byte>(bytes));
    std::string hex = ToHex(sha.Finish());
    if (behaviour_.lie_about_known_row) hex[0] = hex[0] == '0' ? '1' : '0';
    welcome.known_answers.push_back({layer, row, hex});
  }
  return welcome;
}

void FakeNode::CloseControl() {
  {
    const std::lock_guard lock(mutex_);
    peers_.clear();
  }
  control_.reset();
}

void FakeNode::OnGone(uint64_t session) {
  const std::lock_guard lock(mutex_);
  const auto peer = peers_.find(session);
  if (peer == peers_.end()) return;
  to_disconnect_.push_back(peer->second.second);
  peers_.erase(peer);
  transport_->WakeUp();
}

// Row 17, or the first one after it that the node owns; of a node outside the map row 17.
uint64_t FakeNode::KnownRow(uint32_t layer_index) const {
  for (uint64_t row = 17; row < layout_.layers[layer_index].total_rows; ++row) {
    if (OwnsRow(owners_, self_, layer_index, row)) return row;
  }
  return 17;
}

void FakeNode::Run() {
  while (!stopping_) {
    {
      const std::lock_guard lock(mutex_);
      // The loopback tells of it also to a connection that the same client has opened since.
      const bool own_end = transport_->name() == "ucx";
      for (const net::PeerId peer : to_disconnect_) {
        if (own_end) transport_->Disconnect(peer);
      }
      to_disconnect_.clear();
      for (auto& [address, promise] : to_connect_) {
        promise.set_value(transport_->Connect(address));
      }
      to_connect_.clear();
    }
    if (stopped_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      continue;
    }
    if (transport_->Progress() == 0) transport_->Wait(std::chrono::milliseconds(5));
  }
}

void FakeNode::OnMessage(net::PeerId from, std::span<const std::byte> header,
                         std::span<const std::byte> body) {
  const auto lookup = net::ParseLookup(header, body);
  CHECK(lookup.ok()) << lookup.status().ToString();
  CHECK_GE(lookup->header.session, 1000u);
  CHECK_EQ(lookup->header.epoch, behaviour_.map.epoch);
  lookups_.fetch_add(1);
  if (loses_) return;
  if (behaviour_.refuse_lookups.ok()) return Answer(from, *lookup);
  const std::string text = behaviour_.refuse_lookups.message();
  auto buffer = *transport_->AllocateSendBuffer(text.size());
  std::memcpy(buffer->bytes().data(), text.data(), text.size());
  net::LookupErrorHeader error;
  error.request_id = lookup->header.request_id;
  error.code = static_cast<int>(behaviour_.refuse_lookups.code());
  net::Seal(error, buffer->bytes().first(text.size()));
  net::SendBuffer* raw = buffer.get();
  buffers_.push_back(std::move(buffer));
  (void)transport_->Send(from, net::HeaderBytes(error), raw, text.size(), {}).ok();
}

void FakeNode::Answer(net::PeerId to, const net::LookupView& lookup) {
  const std::byte* next = lookup.ids.data();
  for (const net::LookupLayer& layer : lookup.layers()) {
    std::vector<uint64_t> rows(layer.row_count);
    for (uint64_t& row : rows) {
      std::memcpy(&row, next, lookup.header.id_bytes);  // little-endian
      next += lookup.header.id_bytes;
    }
    rows_asked_.fetch_add(rows.size());
    // A row sent to the wrong owner would be a fault of the client's split.
    for (const uint64_t row : rows) CHECK(OwnsRow(owners_, self_, layer.layer_index, row));
    for (uint32_t first = 0; first < rows.size(); first += behaviour_.chunk_rows) {
      const size_t count = std::min<size_t>(behaviour_.chunk_rows, rows.size() - first);
      SendChunk(to, lookup.header.request_id, layer.layer_index, first,
                std::span<const uint64_t>(rows).subspan(first, count));
    }
  }
}

void FakeNode::SendChunk(net::PeerId to, uint64_t request_id, uint32_t layer_index, uint32_t first,
                         std::span<const uint64_t> rows) {
  if (free_buffers_.empty()) {
    buffers_.push_back(*transport_->AllocateSendBuffer(net::kBodyBytesMax));
    free_buffers_.push_back(buffers_.back().get());
  }
  net::SendBuffer* buffer = free_buffers_.back();
  free_buffers_.pop_back();
  const uint32_t row_bytes = layout_.row_format.row_bytes();
  const uint32_t stored_row_bytes = table::StoredRowBytes(row_bytes);
  const std::span<std::byte> bytes = buffer->bytes().first(rows.size() * stored_row_bytes);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::span<std::byte> stored = bytes.subspan(i * stored_row_bytes, stored_row_bytes);
    FillRow(layer_index, rows[i], stored.first(row_bytes));
    if (behaviour_.wrong_bytes_in_known_row && rows[i] == KnownRow(layer_index))
      stored[0] ^= std::byte{1};
    table::SealRow(layer_index, rows[i], stored);
    if (damages_) stored[5] ^= std::byte{4};
  }
  net::RowsHeader header;
  header.request_id = request_id;
  header.layer_index = layer_index;
  header.first = first + static_cast<uint32_t>(behaviour_.shift_first);
  header.row_count = static_cast<uint32_t>(rows.size());
  header.stored_row_bytes = stored_row_bytes;
  net::Seal(header);
  const Status sent =
      transport_->Send(to, net::HeaderBytes(header), buffer, bytes.size(),
                       [this, buffer](const Status&) { free_buffers_.push_back(buffer); });
  if (!sent.ok()) free_buffers_.push_back(buffer);  // the client left meanwhile
}

}  // namespace engram::client
