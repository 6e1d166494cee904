// One tool at a time publishes, aborts or drops versions of a model: the reservation that keeps the
// second one out (memnode/node/reservations.h), for as long as this object lives.
#pragma once

#include <string>

#include "common/base/status.h"
#include "memnode/ctl/nodes.h"

namespace engram::ctl {

class Reservation {
 public:
  // Takes it at `node`, the first member of the cluster. `doing` is shown to other tools.
  // FAILED_PRECONDITION names the tool that has it.
  static Result<Reservation> Take(const Nodes& nodes, size_t node, const std::string& model,
                                  const std::string& doing);
  Reservation(Reservation&& other) noexcept;
  ~Reservation();  // gives it back

  // To be called at least every few seconds. FAILED_PRECONDITION: another tool has it now. A node
  // that cannot be reached is no error: it will be asked again by what follows.
  Status Renew() const;
  // Belongs into every request that changes a publication.
  const std::string& token() const { return token_; }

 private:
  Reservation(const Nodes& nodes, size_t node, std::string model, std::string holder);
  json::object Request(const char* command) const;

  const Nodes* nodes_;  // null: moved away
  size_t node_;
  std::string model_, holder_, token_;
};

}  // namespace engram::ctl
