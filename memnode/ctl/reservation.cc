#include "memnode/ctl/reservation.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "memnode/node/random_name.h"

namespace engram::ctl {
namespace {

// One line, as long as a host's name may be.
std::string ThisTool() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {'?'};
  return fmt::format("engramctl on host {}, process {}", host.data(), ::getpid());
}

}  // namespace

Reservation::Reservation(const Nodes& nodes, size_t node, std::string model, std::string holder)
    : nodes_(&nodes),
      node_(node),
      model_(std::move(model)),
      holder_(std::move(holder)),
      token_(memnode::RandomName()) {}

Reservation::Reservation(Reservation&& other) noexcept
    : nodes_(std::exchange(other.nodes_, nullptr)),
      node_(other.node_),
      model_(std::move(other.model_)),
      holder_(std::move(other.holder_)),
      token_(std::move(other.token_)) {}

Reservation::~Reservation() {
  if (nodes_ != nullptr) (void)nodes_->Call(node_, Request("release"));
}

json::object Reservation::Request(const char* command) const {
  return {{"command", command}, {"name", model_}, {"token", token_}, {"holder", holder_}};
}

Result<Reservation> Reservation::Take(const Nodes& nodes, size_t node, const std::string& model,
                                      const std::string& doing) {
  Reservation taken(nodes, node, model, fmt::format("{} by {}", doing, ThisTool()));
  const auto reply = nodes.Call(node, taken.Request("reserve"));
  if (reply.ok()) return taken;
  taken.nodes_ = nullptr;
  return Status(reply.status().code(), reply.status().message() + "; nothing was changed");
}

Status Reservation::Renew() const {
  const Status renewed = nodes_->Call(node_, Request("reserve")).status();
  const bool unreachable =
      renewed.code() == Code::kUnavailable || renewed.code() == Code::kDeadlineExceeded;
  return unreachable ? OkStatus() : renewed;
}

}  // namespace engram::ctl
