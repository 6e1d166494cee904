// Fuzzes the reading of etcd's answers (memnode/cluster/etcd_answers.h): whatever is accepted keeps
// to its bounds, and what was base64 is what our own writer makes of the bytes.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/check.h"
#include "memnode/cluster/etcd_answers.h"

namespace {

using namespace engram;
using namespace engram::memnode;

void CheckValue(const EtcdValue& value) {
  CHECK(!value.key.empty());
  CHECK_GE(value.mod_revision, 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto range = ParseEtcdRange(text); range.ok()) {
    CHECK_GE(range->revision, 1);
    CHECK_LE(range->values.size(), kEtcdValuesMax);
    for (const EtcdValue& value : range->values) CheckValue(value);
  }
  if (const auto swap = ParseEtcdSwap(text); swap.ok() && swap->found) CheckValue(*swap->found);
  if (const auto news = ParseEtcdNews(text); news.ok()) {
    CHECK_LE(news->events.size(), kEtcdValuesMax);
    for (const EtcdNews::Event& event : news->events) {
      CheckValue(event.value);
      CHECK(!event.removed || event.value.bytes.empty());
    }
    CHECK(!news->compacted || !news->cancelled.empty());
  }
  if (const auto token = ParseEtcdToken(text); token.ok()) {
    CHECK(std::all_of(token->begin(), token->end(), [](char c) { return c > ' ' && c <= '~'; }));
  }
  const EtcdRefusal refusal = ParseEtcdRefusal(500, text);
  CHECK(!refusal.message.empty());
  CHECK(std::all_of(refusal.message.begin(), refusal.message.end(),
                    [](char c) { return c >= ' ' && c <= '~'; }));
  if (const auto bytes = FromBase64(text)) CHECK(Base64(*bytes) == text);
  CHECK(FromBase64(Base64(text)) == text);
  return 0;
}
