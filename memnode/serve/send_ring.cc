#include "memnode/serve/send_ring.h"

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

SendRing::Slot* SendRing::Take(net::PeerId peer, TimePoint now) {
  CHECK(!free_.empty());
  Slot* slot = free_.back();
  free_.pop_back();
  slot->peer = peer;
  slot->since = now;
  return slot;
}

void SendRing::Release(Slot* slot) {
  CHECK_NE(slot->peer, 0u);
  slot->peer = 0;
  free_.push_back(slot);
}

net::PeerId SendRing::StuckPeer(TimePoint limit) const {
  if (idle()) return 0;
  for (const auto& slot : slots_) {
    if (slot->peer != 0 && slot->since < limit) return slot->peer;
  }
  return 0;
}

}  // namespace engram::memnode
