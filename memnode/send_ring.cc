#include "memnode/send_ring.h"

namespace engram::memnode {

Status SendRing::Allocate(net::Transport& transport, size_t count, size_t buffer_bytes) {
  for (size_t i = 0; i < count; ++i) {
    auto slot = std::make_unique<Slot>();
    ASSIGN_OR_RETURN(slot->buffer, transport.AllocateSendBuffer(buffer_bytes));
    free_.push_back(slot.get());
    slots_.push_back(std::move(slot));
  }
  return OkStatus();
}

SendRing::Slot* SendRing::Take(net::PeerId peer) {
  CHECK(!free_.empty());
  Slot* slot = free_.back();
  free_.pop_back();
  slot->peer = peer;
  slot->order = ++taken_;
  return slot;
}

void SendRing::Release(Slot* slot) {
  CHECK_NE(slot->peer, 0u);
  slot->peer = 0;
  free_.push_back(slot);
  ++released_;
}

net::PeerId SendRing::OldestPeer() const {
  const Slot* oldest = nullptr;
  for (const auto& slot : slots_) {
    if (slot->peer == 0) continue;
    if (oldest == nullptr || slot->order < oldest->order) oldest = slot.get();
  }
  return oldest == nullptr ? 0 : oldest->peer;
}

}  // namespace engram::memnode
