#include "memnode/ctl/status/status_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace engram::ctl {
namespace {

constexpr size_t kColumns = 100;
constexpr size_t kNameColumnsMin = 8;  // of a column that gives way

// A node's text must not move the terminal's cursor.
std::string Printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

// Three digits: 999, 1.23k, 12.3M.
std::string Short(double value) {
  static constexpr std::array kUnits = {"", "k", "M", "G", "T", "P", "E"};
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  if (unit == 0) return fmt::format("{:.0f}", value);
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}", value, decimals, kUnits[unit]);
}
std::string Short(uint64_t value) { return Short(static_cast<double>(value)); }

// Rounded down: 100 % is all.
std::string ShareOf(uint64_t part, uint64_t whole) {
  if (whole == 0) return "-";
  if (part >= whole) return "100%";
  const double percent = 100 * static_cast<double>(part) / static_cast<double>(whole);
  return fmt::format("{:.1f}%", std::floor(percent * 10) / 10);
}

std::string P99Of(const std::optional<Rate>& rate, const MemberReply& reply) {
  if (!rate || !rate->p99_us_max) return "-";
  const auto text = [](double us) {
    return us < 1000  ? fmt::format("{:.3g}us", us)
           : us < 1e6 ? fmt::format("{:.3g}ms", us / 1000)
                      : fmt::format("{:.3g}s", us / 1e6);
  };
  if (std::isfinite(*rate->p99_us_max)) return "<" + text(*rate->p99_us_max);
  const std::vector<double>& bounds = reply.service_bounds_us;
  return bounds.empty() ? "-" : ">" + text(bounds.back());
}

std::string VersionsOfMember(const MemberReply& reply) {
  std::string text;
  for (const NodeVersion& v : reply.versions) {
    if (v.published) text += fmt::format("{}{}:{}", text.empty() ? "" : " ", v.model, v.version);
  }
  return text.empty() ? "-" : text;
}

struct Column {
  const char* header;
  bool left = false;  // aligned; such a column may be cut short
  std::vector<std::string> cells = {};
  size_t width = 0;
};

// Characters, where each code point is one.
size_t WidthOf(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string Cut(const std::string& text, size_t width) {
  if (WidthOf(text) <= width) return text;
  size_t end = 0, shown = 0;
  while (end < text.size()) {
    const bool begins = (static_cast<unsigned char>(text[end]) & 0xc0) != 0x80;
    if (begins && ++shown == width) break;
    ++end;
  }
  return text.substr(0, end) + "~";
}

// The widest of those that may give way does, until the line fits.
void Fit(std::vector<Column>& columns) {
  size_t total = columns.size() - 1;
  for (Column& column : columns) {
    column.width = WidthOf(column.header);
    for (const std::string& cell : column.cells) {
      column.width = std::max(column.width, WidthOf(cell));
    }
    total += column.width;
  }
  while (total > kColumns) {
    Column* widest = nullptr;
    for (Column& column : columns) {
      if (!column.left || column.width <= kNameColumnsMin) continue;
      if (widest == nullptr || column.width > widest->width) widest = &column;
    }
    if (widest == nullptr) return;
    --widest->width;
    --total;
  }
}

std::string Rendered(const std::vector<Column>& columns, size_t rows) {
  std::string text;
  for (size_t row = 0; row <= rows; ++row) {
    std::string line;
    for (const Column& column : columns) {
      const std::string cell = Cut(row == 0 ? column.header : column.cells[row - 1], column.width);
      const std::string gap(column.width - WidthOf(cell), ' ');
      line += (line.empty() ? "" : " ") + (column.left ? cell + gap : gap + cell);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string MembersTable(const ClusterView& view) {
  std::vector<Column> columns = {
      {"member", true}, {"state", true}, {"zone", true},    {"epoch"},  {"parts"},
      {"memory"},       {"store"},       {"version", true}, {"in mem"}, {"cold"},
      {"rows/s"},       {"p99"},         {"behind"}};
  bool zones = false;
  for (const Member& member : view.members) {
    std::vector<std::string> cells(columns.size(), "-");
    cells[0] = Printable(member.name);
    cells[1] = member.state;
    if (member.reply) {
      const MemberReply& r = *member.reply;
      zones |= !r.zone.empty();
      cells[2] = Printable(r.zone);
      cells[3] = std::to_string(r.epoch);
      if (!r.loading) {
        cells[4] = Short(r.partitions);
        cells[5] = Short(r.memory_bytes) + "B";
        if (r.store) cells[6] = Short(r.store->bytes) + "B";
        cells[7] = Printable(VersionsOfMember(r));
        cells[8] = ShareOf(r.rows_in_memory, r.rows);
        cells[9] = Short(r.rows - std::min(r.rows, r.rows_in_memory));
        if (member.rate) cells[10] = Short(member.rate->rows_per_s);
        cells[11] = P99Of(member.rate, r);
        if (member.behind) cells[12] = std::to_string(*member.behind);
      }
    }
    for (size_t i = 0; i < columns.size(); ++i) columns[i].cells.push_back(std::move(cells[i]));
  }
  if (!zones) columns.erase(columns.begin() + 2);
  Fit(columns);
  return Rendered(columns, view.members.size());
}

// Lines of at most kColumns, broken between words; the first begins with `first`, the others with
// as many spaces.
std::string Wrapped(const std::string& first, const std::string& text) {
  std::string lines, line = first;
  bool empty = true;  // this line has no word
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    at = end + 1;
    if (!empty && WidthOf(line) + 1 + WidthOf(word) > kColumns) {
      lines += line + "\n";
      line = std::string(first.size(), ' ');
      empty = true;
    }
    line += (empty ? "" : " ") + word;
    empty = false;
  }
  return lines + line + "\n";
}

// "rows/s sent and p99 over 1.0 s", or between the shortest and the longest.
std::string IntervalOf(const ClusterView& view) {
  double shortest = INFINITY, longest = 0;
  for (const Member& member : view.members) {
    if (!member.rate) continue;
    shortest = std::min(shortest, member.rate->seconds);
    longest = std::max(longest, member.rate->seconds);
  }
  if (longest == 0) return "";
  const std::string one = fmt::format("{:.1f}", shortest), other = fmt::format("{:.1f}", longest);
  return fmt::format("; rows/s sent and p99 over {} s", one == other ? one : one + " to " + other);
}

json::array PublishedJson(const MemberReply& reply) {
  json::array versions;
  for (const NodeVersion& v : reply.versions) {
    if (!v.published) continue;
    versions.push_back(json::object{{"model", v.model},
                                    {"version", v.version},
                                    {"generation", std::to_string(v.generation)},
                                    {"digest", v.digest},
                                    {"loaded", v.loaded}});
  }
  return versions;
}

void AddReply(const MemberReply& r, json::object& member) {
  member["zone"] = r.zone;
  member["epoch"] = r.epoch;
  member["loading"] = r.loading;
  member["listed"] = json::value_from(r.members);
  member["sessions"] = std::to_string(r.sessions);
  member["rows_sent"] = std::to_string(r.rows_sent);
  if (r.loading) return;
  member["partitions"] = r.partitions;
  member["memory_bytes"] = std::to_string(r.memory_bytes);
  member["versions"] = PublishedJson(r);
  member["rows"] = std::to_string(r.rows);
  member["cold_rows"] = std::to_string(r.rows - std::min(r.rows, r.rows_in_memory));
  if (r.rows > 0) {
    member["residency"] = static_cast<double>(r.rows_in_memory) / static_cast<double>(r.rows);
  }
  if (!r.store) return;
  member["store_bytes"] = std::to_string(r.store->bytes);
  member["store_age_ms"] = std::to_string(r.store->age_ms);
  if (r.store->free_bytes) member["store_free_bytes"] = std::to_string(*r.store->free_bytes);
}

json::object MemberJson(const Member& member) {
  json::object object = {{"name", member.name},
                         {"address", member.address},
                         {"state", member.state},
                         {"error", member.error.message()}};
  for (const char* key :
       {"zone", "epoch", "partitions", "memory_bytes", "store_bytes", "store_free_bytes",
        "store_age_ms", "versions", "rows", "cold_rows", "residency", "rows_per_s", "p99_us_max",
        "rate_seconds", "behind", "sessions", "rows_sent", "loading", "listed"}) {
    object[key] = nullptr;
  }
  if (!member.reply) return object;
  AddReply(*member.reply, object);
  if (member.behind) object["behind"] = std::to_string(*member.behind);
  if (!member.rate) return object;
  object["rows_per_s"] = member.rate->rows_per_s;
  object["rate_seconds"] = member.rate->seconds;
  const std::optional<double>& p99 = member.rate->p99_us_max;
  if (p99 && std::isfinite(*p99)) object["p99_us_max"] = *p99;
  return object;
}

}  // namespace

size_t CountForPersons(const std::vector<Problem>& problems) {
  return static_cast<size_t>(std::ranges::count_if(problems, &Problem::needs_person));
}

std::string StatusTable(const ClusterView& view, const std::vector<Problem>& problems,
                        std::string_view when) {
  std::string text = fmt::format(
      "{} at {}{}\n\n{}\n",
      view.members.size() == 1 ? "1 member" : fmt::format("{} members", view.members.size()), when,
      IntervalOf(view), MembersTable(view));
  for (const Problem& problem : problems) {
    text += Wrapped(problem.needs_person ? "! " : "- ", Printable(problem.what));
    if (!problem.remedy.empty()) text += Wrapped("  do: ", Printable(problem.remedy));
  }
  if (CountForPersons(problems) == 0) text += "nothing needs a person\n";
  return text;
}

json::object StatusJson(const ClusterView& view, const std::vector<Problem>& problems,
                        std::string_view when) {
  json::array members, found;
  for (const Member& member : view.members) members.push_back(MemberJson(member));
  for (const Problem& problem : problems) {
    found.push_back(json::object{{"kind", problem.kind},
                                 {"members", json::value_from(problem.members)},
                                 {"what", problem.what},
                                 {"remedy", problem.remedy},
                                 {"needs_person", problem.needs_person}});
  }
  return {{"time", when},
          {"healthy", CountForPersons(problems) == 0},
          {"members", std::move(members)},
          {"missing", json::value_from(view.missing)},
          {"problems", std::move(found)}};
}

}  // namespace engram::ctl
