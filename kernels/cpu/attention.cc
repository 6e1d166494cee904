// Multi-head latent attention over pages of the cache, absorbed, for prefill and decode alike, so
// that a result never depends on how a prompt was cut. The heads of a token share every load of a
// page, and so do a few tokens of one sequence: a group. Many groups are handed out one by one; few
// are split by page. Either way a page's part is computed by itself and the parts are combined in
// ascending order: the same bits.
#include <algorithm>
#include <array>
#include <cmath>

#include "common/base/check.h"
#include "kernels/cpu/scores.h"
#include "kernels/isa.h"
#include "kernels/ops.h"
#include "kernels/reduce.h"

namespace engram::kernels {
namespace {

constexpr int64_t kPartsAThread = 16;  // held at once when few tokens are split by page

// Rows (heads of tokens) that visit a page together, so that few heads fill blocks of queries too:
// 256 tokens of 4 heads, 26 -> 55 GFLOP/s. With 16 heads and more no difference was measured.
constexpr int64_t kGroupRows = 48;

// How many of a group's rows are laid out for ScoresAvx2. A last block of up to 8 is not:
// LinearRows is as fast on it, and faster on 4 (33 instead of 26 GFLOP/s).
int64_t LaidOutRows([[maybe_unused]] int64_t rows) {
#if defined(__AVX2__) && defined(__FMA__)
  if (ActiveIsa() >= Isa::kAvx512) return 0;
  const int64_t whole = rows / cpu::kScoreQueries * cpu::kScoreQueries;
  return rows - whole > cpu::kScoreQueries / 2 ? rows : whole;
#else
  return 0;
#endif
}

// Tokens of the step, one after the other, of one sequence.
struct Group {
  const MlaSegment* segment;
  int64_t token;  // the first
  int64_t tokens;
  int64_t positions;  // the first token sees; each other one more than the one before
};

// What one page, or all so far, add to a group: per row (head of a token) the largest score, the
// sum of exp(score - largest) and the sum of latents so weighted.
struct Part {
  std::vector<float> largest, weight, latents;  // [rows], [rows], [rows, latent]
  void Resize(int64_t rows, int64_t latent) {
    largest.resize(static_cast<size_t>(rows));
    weight.resize(static_cast<size_t>(rows));
    latents.resize(static_cast<size_t>(rows * latent));
  }
};

// Lane by lane, so that the compiler vectorises it, as it does not std::max_element.
float Largest(std::span<const float> values) {
  std::array<float, kLanes> lanes;
  lanes.fill(values[0]);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) lanes[l] = std::max(lanes[l], values[i + l]);
  }
  for (size_t l = 0; i + l < values.size(); ++l) lanes[l] = std::max(lanes[l], values[i + l]);
  return *std::max_element(lanes.begin(), lanes.end());
}

class Attention {
 public:
  Attention(Pool& pool, const MlaShape& shape, int64_t page_positions)
      : pool_(pool), s_(shape), page_positions_(page_positions) {}

  void Run(std::span<const MlaSegment> segments, std::span<const float> q, const Matrix& kv_b,
           std::span<float> out);

 private:
  int64_t entry() const { return s_.latent + s_.rope; }
  int64_t PagesOf(const Group& group) const {
    return (group.positions + group.tokens - 1 + page_positions_ - 1) / page_positions_;
  }
  // Positions of a page that a token of the group sees; 0 or less when it ends before.
  int64_t SeenOf(const Group& group, int64_t token, int64_t page) const {
    return std::min(page_positions_, group.positions + token - page * page_positions_);
  }
  Matrix KeyRows(const Matrix& kv_b, int64_t head) const {
    return kv_b.Rows(head * (s_.nope + s_.value), s_.nope);
  }
  Matrix ValueRows(const Matrix& kv_b, int64_t head) const {
    return kv_b.Rows(head * (s_.nope + s_.value) + s_.nope, s_.value);
  }
  void Absorb(std::span<const float> q, const Matrix& kv_b);
  void LayOut(std::span<const Group> groups);
  void Score(const Group& group, int64_t page, std::span<float> scores) const;
  void AttendPage(const Group& group, int64_t page, Part& part) const;
  void Add(const Group& group, int64_t page, Part& part, Part& all) const;
  void Finish(const Group& group, const Part& all);
  void OneByOne(std::span<const Group> groups);
  void PageByPage(std::span<const Group> groups);

  Pool& pool_;
  const MlaShape s_;
  const int64_t page_positions_;
  int64_t tokens_ = 0;
  std::vector<float> q_latent_;       // [tokens, heads, entry]
  std::vector<float> laid_out_;       // of each group [rows rounded up to 16, entry]; see scores.h
  std::vector<int64_t> laid_out_at_;  // [tokens]: where that of the group it begins is
  std::vector<float> sums_;           // [tokens, heads, latent]
};

// q_latent = [W_uk^T q_nope | q_rope]: a query that meets cache entries directly.
void Attention::Absorb(std::span<const float> q, const Matrix& kv_b) {
  const int64_t q_width = s_.nope + s_.rope;
  q_latent_.resize(static_cast<size_t>(tokens_ * s_.heads * entry()));
  pool_.Run(s_.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      const float* from = q.data() + h * q_width;
      float* to = q_latent_.data() + h * entry();
      if (h + 1 < end) Prefetch(KeyRows(kv_b, h + 1));
      TransposedRows({from, tokens_, s_.heads * q_width}, KeyRows(kv_b, h), to, s_.heads * entry());
      for (int64_t t = 0; t < tokens_; ++t) {
        std::copy_n(from + t * s_.heads * q_width + s_.nope, s_.rope,
                    to + t * s_.heads * entry() + s_.latent);
      }
    }
  });
}

void Attention::LayOut(std::span<const Group> groups) {
  constexpr int64_t kAlign = 8;  // floats
  laid_out_at_.resize(static_cast<size_t>(tokens_));
  int64_t floats = 0;
  for (const Group& group : groups) {
    laid_out_at_[static_cast<size_t>(group.token)] = floats;
    const int64_t rows = LaidOutRows(group.tokens * s_.heads);
    floats += (rows + cpu::kScoreQueries - 1) / cpu::kScoreQueries * cpu::kScoreQueries * entry();
  }
  if (floats == 0) return;
  laid_out_.resize(static_cast<size_t>(floats + kAlign));
  const auto past = reinterpret_cast<uintptr_t>(laid_out_.data()) / sizeof(float) % kAlign;
  for (int64_t& at : laid_out_at_) at += (kAlign - static_cast<int64_t>(past)) % kAlign;
  pool_.HandOut(static_cast<int64_t>(groups.size()), [&](int64_t i) {
    const Group& group = groups[static_cast<size_t>(i)];
    cpu::LayOutQueriesAvx2(q_latent_.data() + group.token * s_.heads * entry(), entry(),
                           LaidOutRows(group.tokens * s_.heads), entry(),
                           laid_out_.data() + laid_out_at_[static_cast<size_t>(group.token)]);
  });
}

// scores [rows, positions of the page that the last token sees].
void Attention::Score(const Group& group, int64_t page, std::span<float> scores) const {
  const auto& pages = group.segment->pages;
  const int64_t rows = group.tokens * s_.heads, laid_out = LaidOutRows(rows);
  const int64_t count = static_cast<int64_t>(scores.size()) / rows;
  const float* const entries = pages[static_cast<size_t>(page)];
  if (laid_out > 0) {
    const float* const next =
        page + 1 < PagesOf(group) ? pages[static_cast<size_t>(page + 1)] : nullptr;
    cpu::ScoresAvx2(laid_out_.data() + laid_out_at_[static_cast<size_t>(group.token)], laid_out,
                    {entries, count, entry(), entry(), next}, scores.data(), count);
  }
  if (laid_out == rows) return;
  const int64_t row = group.token * s_.heads + laid_out;
  LinearRows({q_latent_.data() + row * entry(), rows - laid_out, entry()},
             MatrixOf({entries, static_cast<size_t>(count * entry())}, count, entry()),
             scores.data() + laid_out * count, count);
}

void Attention::AttendPage(const Group& group, int64_t page, Part& part) const {
  static thread_local std::vector<float> scores;
  const int64_t most = SeenOf(group, group.tokens - 1, page);
  const float* const entries = group.segment->pages[static_cast<size_t>(page)];
  part.Resize(group.tokens * s_.heads, s_.latent);
  scores.resize(static_cast<size_t>(group.tokens * s_.heads * most));
  Score(group, page, scores);
  // Tokens that see equally much of the page, all but on the last one or two, go on together.
  for (int64_t first = 0, end = 0; first < group.tokens; first = end) {
    const int64_t seen = SeenOf(group, first, page);
    for (end = first + 1; end < group.tokens && SeenOf(group, end, page) == seen;) ++end;
    if (seen <= 0) continue;
    for (int64_t row = first * s_.heads; row < end * s_.heads; ++row) {
      const std::span<float> of_row(scores.data() + row * most, static_cast<size_t>(seen));
      const float largest = Largest(of_row);
      part.largest[static_cast<size_t>(row)] = largest;
      part.weight[static_cast<size_t>(row)] = ExpScaled(of_row, largest, s_.scale);
    }
    Matrix latents = MatrixOf({entries, static_cast<size_t>(seen * entry())}, seen, entry());
    latents.columns = s_.latent;
    const int64_t row = first * s_.heads;
    TransposedRows({scores.data() + row * most, (end - first) * s_.heads, most}, latents,
                   part.latents.data() + row * s_.latent, s_.latent);
  }
}

// Pages come in ascending order; every token sees page 0. Leaves `part` to be written again.
void Attention::Add(const Group& group, int64_t page, Part& part, Part& all) const {
  if (page == 0) return std::swap(part, all);
  // Only the later tokens may see a page.
  int64_t first = 0;
  while (SeenOf(group, first, page) <= 0) ++first;
  for (int64_t row = first * s_.heads; row < group.tokens * s_.heads; ++row) {
    float& largest = all.largest[static_cast<size_t>(row)];
    float& weight = all.weight[static_cast<size_t>(row)];
    const float own = part.largest[static_cast<size_t>(row)];
    const float larger = std::max(largest, own);
    // exp(0) is 1: one of the two calls is enough.
    const float keep = largest == larger ? 1.0f : std::exp((largest - larger) * s_.scale);
    const float take = own == larger ? 1.0f : std::exp((own - larger) * s_.scale);
    largest = larger;
    weight = weight * keep + part.weight[static_cast<size_t>(row)] * take;
    float* const sum = all.latents.data() + row * s_.latent;
    const float* const more = part.latents.data() + row * s_.latent;
    for (int64_t i = 0; i < s_.latent; ++i) sum[i] = sum[i] * keep + more[i] * take;
  }
}

void Attention::Finish(const Group& group, const Part& all) {
  for (int64_t row = 0; row < group.tokens * s_.heads; ++row) {
    const float scale = 1.0f / all.weight[static_cast<size_t>(row)];
    const float* const from = all.latents.data() + row * s_.latent;
    float* const to = sums_.data() + (group.token * s_.heads + row) * s_.latent;
    for (int64_t i = 0; i < s_.latent; ++i) to[i] = from[i] * scale;
  }
}

void Attention::OneByOne(std::span<const Group> groups) {
  // The last ones see most: they begin.
  const auto count = static_cast<int64_t>(groups.size());
  pool_.HandOut(count, [&](int64_t i) {
    static thread_local Part part, all;
    const Group& group = groups[static_cast<size_t>(count - 1 - i)];
    for (int64_t p = 0; p < PagesOf(group); ++p) {
      AttendPage(group, p, part);
      Add(group, p, part, all);
    }
    Finish(group, all);
  });
}

void Attention::PageByPage(std::span<const Group> groups) {
  struct Task {
    const Group* group;
    int64_t page;
  };
  std::vector<Task> tasks;
  for (const Group& group : groups) {
    for (int64_t p = 0; p < PagesOf(group); ++p) tasks.push_back({&group, p});
  }
  // A long context has thousands of pages: their parts are made and combined some at a time.
  const size_t wave = static_cast<size_t>(kPartsAThread * pool_.threads());
  std::vector<Part> parts(std::min(wave, tasks.size()));
  Part all;
  for (size_t first = 0; first < tasks.size(); first += wave) {
    const size_t count = std::min(wave, tasks.size() - first);
    pool_.HandOut(static_cast<int64_t>(count), [&](int64_t i) {
      const Task& task = tasks[first + static_cast<size_t>(i)];
      AttendPage(*task.group, task.page, parts[static_cast<size_t>(i)]);
    });
    for (size_t i = 0; i < count; ++i) {
      const Task& task = tasks[first + i];
      Add(*task.group, task.page, parts[i], all);
      if (task.page + 1 == PagesOf(*task.group)) Finish(*task.group, all);
    }
  }
}

void Attention::Run(std::span<const MlaSegment> segments, std::span<const float> q,
                    const Matrix& kv_b, std::span<float> out) {
  std::vector<Group> groups;
  const int64_t together = std::max<int64_t>(1, kGroupRows / s_.heads);
  tokens_ = 0;
  for (const MlaSegment& segment : segments) {
    CHECK_LE(segment.first_position + segment.tokens,
             static_cast<int64_t>(segment.pages.size()) * page_positions_);
    for (int64_t t = 0; t < segment.tokens; t += together) {
      groups.push_back({&segment, tokens_ + t, std::min(together, segment.tokens - t),
                        segment.first_position + t + 1});
    }
    tokens_ += segment.tokens;
  }
  CHECK_EQ(static_cast<int64_t>(q.size()), tokens_ * s_.heads * (s_.nope + s_.rope));
  CHECK_EQ(static_cast<int64_t>(out.size()), tokens_ * s_.heads * s_.value);
  CHECK(kv_b.rows == s_.heads * (s_.nope + s_.value) && kv_b.columns == s_.latent);
  Absorb(q, kv_b);
  LayOut(groups);
  sums_.resize(static_cast<size_t>(tokens_ * s_.heads * s_.latent));
  if (pool_.threads() == 1 || std::ssize(groups) >= 4 * pool_.threads()) {
    OneByOne(groups);
  } else {
    PageByPage(groups);
  }
  pool_.Run(s_.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      if (h + 1 < end) Prefetch(ValueRows(kv_b, h + 1));
      LinearRows({sums_.data() + h * s_.latent, tokens_, s_.heads * s_.latent}, ValueRows(kv_b, h),
                 out.data() + h * s_.value, s_.heads * s_.value);
    }
  });
}

}  // namespace

void MlaAttention(Pool& pool, const MlaShape& shape, int64_t page_positions,
                  std::span<const MlaSegment> segments, std::span<const float> q,
                  const Matrix& kv_b, std::span<float> out) {
  Attention(pool, shape, page_positions).Run(segments, q, kv_b, out);
}

}  // namespace engram::kernels
