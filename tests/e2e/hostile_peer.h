// A stranger at every port of a memory node: what it throws, holds open and drips. Everything it
// does is bounded in time and bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/rng.h"
#include "tests/support/sockets.h"

namespace engram::testing_support {

class HostilePeer {
 public:
  // `openings`: valid first messages of the protocols spoken here, to be cut, damaged and followed
  // by garbage.
  HostilePeer(std::vector<std::string> openings, uint64_t seed)
      : openings_(std::move(openings)), rng_(seed) {}

  // Garbage, other protocols, huge lengths, damaged and cut openings, resets: one connection each.
  void ThrowBytes(const Listener& at);
  // To a control socket, as a peer that knows the secret (none): hellos damaged, cut, repeated and
  // followed by garbage. Returns how many times the node let it in.
  int ThrowHellos(const Listener& at, const std::vector<std::string>& hello_frames);
  // Datagrams of all sizes.
  void ThrowDatagrams(const Listener& at);
  // Frames that announce 1 MiB and stop one byte before it, after a challenge passed or at once;
  // kept open.
  void HoldUnfinishedFrames(const Listener& at, int count, bool introduced);
  // Connections that say nothing; kept open. Returns how many were made.
  int HoldIdle(const Listener& at, int count);
  // Connections that will send an opening byte by byte, one a Drip(); kept open.
  void StartDripping(const Listener& at);
  void Drip();
  // Closes whatever is kept open.
  void LetGo();

  uint64_t connections_made() const { return connections_made_; }

 private:
  struct Dripping {
    RawConnection connection;
    std::string bytes;
    size_t sent = 0;
  };
  void Throw(const Listener& at, const std::string& bytes);
  void ThrowAt(RawConnection connection, const std::string& bytes);
  std::string RandomBytes(size_t count);
  std::string Damaged(std::string bytes);

  const std::vector<std::string> openings_;
  Rng rng_;
  std::vector<RawConnection> held_;
  std::vector<Dripping> dripping_;
  uint64_t connections_made_ = 0;
};

}  // namespace engram::testing_support
