#include "tests/e2e/hostile_client.h"

#include <algorithm>
#include <cstring>

#include "common/base/clock.h"
#include "common/base/crc32c.h"
#include "common/io/host_port.h"
#include "common/net/tcp/transport.h"
#include "common/net/wire_encode.h"

namespace engram::testing_support {
namespace {

constexpr Nanos kTimeout = std::chrono::seconds(5);
constexpr Nanos kSendTimeout = std::chrono::seconds(1);

}  // namespace

HostileClient::HostileClient(const std::string& control_address, const net::WireConfig& wire,
                             const table::TableIdentity& identity, uint64_t seed)
    : control_address_(control_address), wire_(wire), identity_(identity), rng_(seed) {}

HostileClient::~HostileClient() {
  buffer_.reset();  // before its transport
  transport_.reset();
}

Status HostileClient::Connect() {
  control_.reset();
  buffer_.reset();
  transport_.reset();
  ASSIGN_OR_RETURN(transport_, net::MakeTransport(wire_, nullptr, "", 0));
  transport_->SetHandler(this);
  ASSIGN_OR_RETURN(buffer_, transport_->AllocateSendBuffer(net::kBodyBytesMax));
  net::Hello hello;
  hello.identity = identity_;
  hello.transport = transport_->name();
  hello.settings = transport_->settings();
  hello.address = transport_->address();
  ASSIGN_OR_RETURN(const io::HostPort where, io::ParseHostPort(control_address_));
  ASSIGN_OR_RETURN(control_, net::ControlClient::Connect(where.host, where.port, hello, kTimeout));
  ASSIGN_OR_RETURN(peer_,
                   transport_->Connect(net::WithHost(control_->welcome().address, where.host)));
  return OkStatus();
}

void HostileClient::OnMessage(net::PeerId, std::span<const std::byte> header,
                              std::span<const std::byte> body) {
  errors_received_ += net::ParseLookupError(header, body).ok();
  const auto rows = net::ParseRows(header, body);
  if (rows.ok()) rows_received_ += rows->row_count;
}

void HostileClient::OnPeerLost(net::PeerId peer, const Status&) {
  if (peer != peer_) return;
  peer_ = 0;
  ++times_dropped_;
}

HostileClient::Bytes HostileClient::RandomBytes(size_t count) {
  Bytes bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng_.NextU64());
  return bytes;
}

void HostileClient::Damage(Bytes& bytes) {
  for (uint64_t i = 1 + rng_.NextBelow(3); i > 0 && !bytes.empty(); --i) {
    bytes[rng_.NextBelow(bytes.size())] = static_cast<std::byte>(rng_.NextU64());
  }
}

HostileClient::Message HostileClient::Lookup(net::LookupHeader header,
                                             std::vector<net::LookupLayer> layers) {
  Message message;
  size_t ids = 0;
  for (const net::LookupLayer& layer : layers) ids += layer.row_count;
  message.body.assign(std::min(ids * header.id_bytes, net::kBodyBytesMax), std::byte{0});
  net::EncodeLookup(header, layers, message.body, message.header);
  return message;
}

net::LookupHeader HostileClient::HeaderOfOurs() {
  net::LookupHeader header;
  header.session = control_->welcome().session;
  header.request_id = next_request_++;
  header.epoch = control_->welcome().map.epoch;
  header.budget_us = 1'000'000;
  return header;
}

HostileClient::Message HostileClient::Nonsense() {
  net::LookupHeader header = HeaderOfOurs();
  switch (rng_.NextBelow(10)) {
    case 0:  // not a message at all
      return {RandomBytes(rng_.NextBelow(200)), RandomBytes(rng_.NextBelow(5000))};
    case 1:  // the largest there is
      return {RandomBytes(net::kHeaderBytesMax), RandomBytes(net::kBodyBytesMax)};
    case 2: {  // damaged on the way
      Message message = Lookup(header, {{0, 10, 0}, {1, 10, 0}});
      Damage(rng_.NextBelow(2) == 0 ? message.header : message.body);
      return message;
    }
    case 3: {  // wrong, and sealed: the CRC is right
      Message message = Lookup(header, {{0, 10, 0}, {1, 10, 0}});
      Damage(message.header);
      Bytes& bytes = message.header;
      std::memset(bytes.data() + offsetof(net::LookupHeader, crc32c), 0, sizeof(uint32_t));
      const uint32_t crc = Crc32c(message.body, Crc32c(bytes));
      std::memcpy(bytes.data() + offsetof(net::LookupHeader, crc32c), &crc, sizeof(crc));
      return message;
    }
    case 4: {  // rows past the end
      Message message = Lookup(header, {{0, 10, 0}});
      std::fill(message.body.begin(), message.body.end(), std::byte{0xff});
      net::EncodeLookup(header, {{{0, 10, 0}}}, message.body, message.header);
      return message;
    }
    case 5:  // a layer that does not exist
      return Lookup(header, {{63, 1, 0}});
    case 6:  // another client's session
      header.session ^= 1 + rng_.NextBelow(100);
      return Lookup(header, {{0, 10, 0}});
    case 7:  // another cluster map, or no time left
      (rng_.NextBelow(2) == 0 ? header.epoch : header.budget_us) = 0;
      return Lookup(header, {{0, 10, 0}});
    case 8:  // seen before
      header.request_id = 1 + rng_.NextBelow(3);
      return Lookup(header, {{0, 10, 0}});
    default: {  // what only a node says
      net::RowsHeader rows;
      rows.request_id = header.request_id;
      rows.row_count = 1;
      rows.stored_row_bytes = 100;
      net::Seal(rows);
      const auto bytes = net::HeaderBytes(rows);
      return {{bytes.begin(), bytes.end()}, RandomBytes(100)};
    }
  }
}

Status HostileClient::Send(const Message& message) {
  std::copy(message.body.begin(), message.body.end(), buffer_->bytes().begin());
  bool sent = false;
  Status outcome;
  RETURN_IF_ERROR(transport_->Send(peer_, message.header, buffer_.get(), message.body.size(),
                                   [&](Status status) {
                                     outcome = std::move(status);
                                     sent = true;
                                   }));
  const TimePoint end = Clock::Real().Now() + kSendTimeout;
  while (!sent && Clock::Real().Now() < end) transport_->Progress();
  if (sent) return outcome;
  transport_.reset();  // its callback must not come any more
  peer_ = 0;
  return DeadlineExceeded("the node takes no more");
}

void HostileClient::ProgressFor(Nanos time) {
  const TimePoint end = Clock::Real().Now() + time;
  while (transport_ != nullptr && Clock::Real().Now() < end) transport_->Progress();
}

Status HostileClient::SpeakNonsense() {
  if (peer_ == 0) RETURN_IF_ERROR(Connect());
  const Status sent = Send(Nonsense());
  if (!sent.ok()) peer_ = 0;  // dropped: the next one begins anew
  ProgressFor(std::chrono::microseconds(200));
  return OkStatus();
}

Status HostileClient::AskAndStopReading(int requests) {
  if (peer_ == 0) RETURN_IF_ERROR(Connect());
  const Message message = Lookup(HeaderOfOurs(), {{0, net::kLookupRowsMax, 0}});
  for (int i = 0; i < requests; ++i) {
    Message next = message;
    net::LookupHeader header = HeaderOfOurs();
    net::EncodeLookup(header, {{{0, net::kLookupRowsMax, 0}}}, next.body, next.header);
    if (!Send(next).ok()) break;
  }
  return OkStatus();
}

}  // namespace engram::testing_support
