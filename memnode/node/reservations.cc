#include "memnode/node/reservations.h"

#include <fmt/format.h>

namespace engram::memnode {
namespace {

int64_t SecondsOf(Nanos time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time).count();
}

}  // namespace

Status Reservations::CheckLocked(const std::string& model, const std::string& token) const {
  const auto found = held_.find(model);
  const TimePoint now = clock_.Now();
  if (found == held_.end() || found->second.token == token || now >= found->second.until) {
    return OkStatus();
  }
  const Held& held = found->second;
  return FailedPrecondition(fmt::format(
      "{} is under way since {} s: try again when it has ended (if that tool is gone, {} s from "
      "now)",
      held.holder, SecondsOf(now - held.since), SecondsOf(held.until - now) + 1));
}

Status Reservations::Check(const std::string& model, const std::string& token) const {
  const std::lock_guard lock(mutex_);
  return CheckLocked(model, token);
}

std::vector<Reservations::Reserved> Reservations::List() const {
  const std::lock_guard lock(mutex_);
  std::vector<Reserved> all;
  for (const auto& [model, held] : held_) {
    if (clock_.Now() < held.until) all.push_back({model, held.holder});
  }
  return all;
}

Status Reservations::Take(const std::string& model, const std::string& token,
                          const std::string& holder) {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(CheckLocked(model, token));
  const TimePoint now = clock_.Now();
  std::erase_if(held_, [&](const auto& entry) {
    return now >= entry.second.until && entry.second.token != token;
  });
  if (held_.size() >= kMax && !held_.contains(model)) {
    return ResourceExhausted(fmt::format(
        "{} models are being published here, at most {} may: wait for one", held_.size(), kMax));
  }
  Held& held = held_.try_emplace(model, Held{token, holder, now, now}).first->second;
  held.until = now + kKept;
  return OkStatus();
}

void Reservations::Release(const std::string& model, const std::string& token) {
  const std::lock_guard lock(mutex_);
  const auto found = held_.find(model);
  if (found != held_.end() && found->second.token == token) held_.erase(found);
}

}  // namespace engram::memnode
