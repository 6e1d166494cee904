#include "memnode/ctl/status/member_reply.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/io/object_reader.h"
#include "common/table/placement.h"

namespace engram::ctl {
namespace {

constexpr size_t kBoundsMax = 256;
constexpr size_t kListMax = 65536;  // the reply fits in a frame

void ReadNames(io::ObjectReader& read, std::vector<std::string>& names) {
  for (const json::value& name : read.Array("members", table::kMembersMax)) {
    if (!name.is_string()) return read.Fail(InvalidArgument("\"members\" holds more than names"));
    names.emplace_back(name.get_string());
  }
}

void ReadService(io::ObjectReader& read, MemberReply& reply) {
  for (const json::value& bound : read.Array("service_bounds_us", kBoundsMax)) {
    if (!bound.is_double() && !bound.is_int64()) {
      return read.Fail(InvalidArgument("\"service_bounds_us\" holds more than numbers"));
    }
    reply.service_bounds_us.push_back(bound.is_double() ? bound.get_double()
                                                        : static_cast<double>(bound.get_int64()));
  }
  read.Numbers("service_counts", kBoundsMax + 1, reply.service_counts);
  if (reply.service_counts.size() == reply.service_bounds_us.size() + 1 &&
      std::ranges::is_sorted(reply.service_bounds_us)) {
    return;
  }
  read.Fail(
      InvalidArgument(fmt::format("{} \"service_counts\" for {} ascending bounds",
                                  reply.service_counts.size(), reply.service_bounds_us.size())));
}

Result<MemberReply::Store> ReadStore(const json::value& value) {
  MemberReply::Store store;
  io::ObjectReader read(value, "store");
  read.Number("bytes", store.bytes);
  std::string free_bytes;
  read.String("free_bytes", free_bytes);
  if (!free_bytes.empty()) read.Number("free_bytes", store.free_bytes.emplace());
  read.Number("age_ms", store.age_ms);
  read.Number("waiting_ms", store.waiting_ms);
  read.String("problem", store.problem);
  read.Bool("full", store.full);
  RETURN_IF_ERROR(read.status());
  return store;
}

Status ReadLists(io::ObjectReader& read, MemberReply& reply) {
  for (const json::value& value : read.Array("damage", kListMax)) {
    MemberReply::Damaged& damaged = reply.damage.emplace_back();
    io::ObjectReader one(value, "damage");
    one.String("model", damaged.model);
    one.String("version", damaged.version);
    one.String("why", damaged.why);
    one.Number("partitions", damaged.partitions);
    RETURN_IF_ERROR(one.status());
  }
  for (const json::value& value : read.Array("reserved", kListMax)) {
    MemberReply::Reserved& reserved = reply.reserved.emplace_back();
    io::ObjectReader one(value, "reserved");
    one.String("model", reserved.model);
    one.String("holder", reserved.holder);
    RETURN_IF_ERROR(one.status());
  }
  return OkStatus();
}

Result<MemberReply> Parse(const json::object& object) {
  MemberReply reply;
  io::ObjectReader read(object, "status");
  for (const auto& [key, place] : {std::pair{"member", &reply.member},
                                   {"zone", &reply.zone},
                                   {"run", &reply.run},
                                   {"state", &reply.state},
                                   {"why", &reply.why}}) {
    read.String(key, *place);
  }
  read.Int("epoch", 0, UINT32_MAX, reply.epoch);
  for (const auto& [key, place] : {std::pair{"change", &reply.change},
                                   {"change_problem", &reply.change_problem},
                                   {"keeper", &reply.keeper}}) {
    if (read.Has(key)) read.String(key, *place);  // a node that loads does not tell
  }
  read.Bool("loading", reply.loading);
  for (const auto& [key, place] : {std::pair{"clock_ns", &reply.clock_ns},
                                   {"sessions", &reply.sessions},
                                   {"rows_sent", &reply.rows_sent},
                                   {"recent_lookups", &reply.recent_lookups},
                                   {"recent_unreadable", &reply.recent_unreadable},
                                   {"partitions", &reply.partitions},
                                   {"rows", &reply.rows},
                                   {"rows_in_memory", &reply.rows_in_memory},
                                   {"memory_bytes", &reply.memory_bytes},
                                   {"unmended", &reply.unmended}}) {
    read.Number(key, *place);
  }
  ReadNames(read, reply.members);
  ReadService(read, reply);
  RETURN_IF_ERROR(ReadLists(read, reply));
  RETURN_IF_ERROR(read.status());
  if (reply.member.empty()) return InvalidArgument("status: \"member\" is empty");
  if (reply.state != "joining" && reply.state != "serving" && reply.state != "draining") {
    return InvalidArgument(fmt::format(
        "status: \"state\" is \"{:.40}\", expected joining, serving or draining", reply.state));
  }
  const json::value* const store = object.if_contains("store");
  if (store == nullptr) return InvalidArgument("status: no \"store\"");
  if (!store->is_null()) {
    ASSIGN_OR_RETURN(reply.store, ReadStore(*store));
  }
  ASSIGN_OR_RETURN(reply.versions, VersionsOf(object));
  return reply;
}

}  // namespace

Result<MemberReply> ParseMemberReply(const json::object& reply, const std::string& address) {
  Result<MemberReply> parsed = Parse(reply);
  if (parsed.ok()) return parsed;
  return parsed.status().WithContext("memory node " + address);
}

}  // namespace engram::ctl
