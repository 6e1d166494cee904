// Multi-head latent attention over pages of the cache, absorbed, for prefill and decode alike, so
// that a result never depends on how a prompt was cut. The heads of a token share every load of a
// page. Many tokens are handed out one by one; few are split by page. Either way a page's part is
// computed by itself and the parts are combined in ascending order: the same bits.
#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "kernels/ops.h"
#include "kernels/reduce.h"

namespace engram::kernels {
namespace {

constexpr int64_t kPartsAThread = 16;  // held at once when few tokens are split by page

// One token of the step and what it looks at.
struct Query {
  const MlaSegment* segment;
  int64_t token;      // of the step
  int64_t positions;  // it sees
};

// What one page, or all so far, add to a token: per head the largest score, the sum of exp(score -
// largest) and the sum of latents so weighted.
struct Part {
  std::vector<float> largest, weight, latents;  // [heads], [heads], [heads, latent]
  void Resize(int64_t heads, int64_t latent) {
    largest.resize(static_cast<size_t>(heads));
    weight.resize(static_cast<size_t>(heads));
    latents.resize(static_cast<size_t>(heads * latent));
  }
};

class Attention {
 public:
  Attention(Pool& pool, const MlaShape& shape, int64_t page_positions)
      : pool_(pool), s_(shape), page_positions_(page_positions) {}

  void Run(std::span<const MlaSegment> segments, std::span<const float> q, const Matrix& kv_b,
           std::span<float> out);

 private:
  int64_t entry() const { return s_.latent + s_.rope; }
  int64_t PagesOf(const Query& query) const {
    return (query.positions + page_positions_ - 1) / page_positions_;
  }
  Matrix KeyRows(const Matrix& kv_b, int64_t head) const {
    return kv_b.Rows(head * (s_.nope + s_.value), s_.nope);
  }
  Matrix ValueRows(const Matrix& kv_b, int64_t head) const {
    return kv_b.Rows(head * (s_.nope + s_.value) + s_.nope, s_.value);
  }
  void Absorb(std::span<const float> q, const Matrix& kv_b);
  void AttendPage(const Query& query, int64_t page, Part& part) const;
  void Add(const Part& page, bool first, Part& all) const;
  void Finish(const Query& query, const Part& all);
  void OneByOne(std::span<const Query> queries);
  void PageByPage(std::span<const Query> queries);

  Pool& pool_;
  const MlaShape s_;
  const int64_t page_positions_;
  int64_t tokens_ = 0;
  std::vector<float> q_latent_;  // [tokens, heads, entry]
  std::vector<float> sums_;      // [tokens, heads, latent]
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

void Attention::AttendPage(const Query& query, int64_t page, Part& part) const {
  static thread_local std::vector<float> scores;
  const int64_t count = std::min(page_positions_, query.positions - page * page_positions_);
  const float* const entries = query.segment->pages[static_cast<size_t>(page)];
  const Matrix keys = MatrixOf({entries, static_cast<size_t>(count * entry())}, count, entry());
  Matrix latents = keys;
  latents.columns = s_.latent;
  part.Resize(s_.heads, s_.latent);
  scores.resize(static_cast<size_t>(s_.heads * count));
  LinearRows({q_latent_.data() + query.token * s_.heads * entry(), s_.heads, entry()}, keys,
             scores.data(), count);
  for (int64_t h = 0; h < s_.heads; ++h) {
    const std::span<float> row(scores.data() + h * count, static_cast<size_t>(count));
    const float largest = *std::max_element(row.begin(), row.end());
    part.largest[static_cast<size_t>(h)] = largest;
    part.weight[static_cast<size_t>(h)] = ExpScaled(row, largest, s_.scale);
  }
  TransposedRows({scores.data(), s_.heads, count}, latents, part.latents.data(), s_.latent);
}

void Attention::Add(const Part& page, bool first, Part& all) const {
  if (first) {
    all = page;
    return;
  }
  for (int64_t h = 0; h < s_.heads; ++h) {
    const auto head = static_cast<size_t>(h);
    const float largest = std::max(all.largest[head], page.largest[head]);
    const float keep = std::exp((all.largest[head] - largest) * s_.scale);
    const float take = std::exp((page.largest[head] - largest) * s_.scale);
    all.largest[head] = largest;
    all.weight[head] = all.weight[head] * keep + page.weight[head] * take;
    float* const sum = all.latents.data() + h * s_.latent;
    const float* const more = page.latents.data() + h * s_.latent;
    for (int64_t i = 0; i < s_.latent; ++i) sum[i] = sum[i] * keep + more[i] * take;
  }
}

void Attention::Finish(const Query& query, const Part& all) {
  for (int64_t h = 0; h < s_.heads; ++h) {
    const float scale = 1.0f / all.weight[static_cast<size_t>(h)];
    const float* const from = all.latents.data() + h * s_.latent;
    float* const to = sums_.data() + (query.token * s_.heads + h) * s_.latent;
    for (int64_t i = 0; i < s_.latent; ++i) to[i] = from[i] * scale;
  }
}

void Attention::OneByOne(std::span<const Query> queries) {
  // The last ones see most: they begin.
  const auto count = static_cast<int64_t>(queries.size());
  pool_.HandOut(count, [&](int64_t i) {
    static thread_local Part page, all;
    const Query& query = queries[static_cast<size_t>(count - 1 - i)];
    for (int64_t p = 0; p < PagesOf(query); ++p) {
      AttendPage(query, p, page);
      Add(page, p == 0, all);
    }
    Finish(query, all);
  });
}

void Attention::PageByPage(std::span<const Query> queries) {
  struct Task {
    const Query* query;
    int64_t page;
  };
  std::vector<Task> tasks;
  for (const Query& query : queries) {
    for (int64_t p = 0; p < PagesOf(query); ++p) tasks.push_back({&query, p});
  }
  // A long context has thousands of pages: their parts are made and combined some at a time.
  const size_t wave = static_cast<size_t>(kPartsAThread * pool_.threads());
  std::vector<Part> parts(std::min(wave, tasks.size()));
  Part all;
  for (size_t first = 0; first < tasks.size(); first += wave) {
    const size_t count = std::min(wave, tasks.size() - first);
    pool_.HandOut(static_cast<int64_t>(count), [&](int64_t i) {
      const Task& task = tasks[first + static_cast<size_t>(i)];
      AttendPage(*task.query, task.page, parts[static_cast<size_t>(i)]);
    });
    for (size_t i = 0; i < count; ++i) {
      const Task& task = tasks[first + i];
      Add(parts[i], task.page == 0, all);
      if (task.page + 1 == PagesOf(*task.query)) Finish(*task.query, all);
    }
  }
}

void Attention::Run(std::span<const MlaSegment> segments, std::span<const float> q,
                    const Matrix& kv_b, std::span<float> out) {
  std::vector<Query> queries;
  for (const MlaSegment& segment : segments) {
    CHECK_LE(segment.first_position + segment.tokens,
             static_cast<int64_t>(segment.pages.size()) * page_positions_);
    for (int64_t t = 0; t < segment.tokens; ++t) {
      queries.push_back(
          {&segment, static_cast<int64_t>(queries.size()), segment.first_position + t + 1});
    }
  }
  tokens_ = static_cast<int64_t>(queries.size());
  CHECK_EQ(static_cast<int64_t>(q.size()), tokens_ * s_.heads * (s_.nope + s_.rope));
  CHECK_EQ(static_cast<int64_t>(out.size()), tokens_ * s_.heads * s_.value);
  CHECK(kv_b.rows == s_.heads * (s_.nope + s_.value) && kv_b.columns == s_.latent);
  Absorb(q, kv_b);
  sums_.resize(static_cast<size_t>(tokens_ * s_.heads * s_.latent));
  if (pool_.threads() == 1 || tokens_ >= 4 * pool_.threads()) {
    OneByOne(queries);
  } else {
    PageByPage(queries);
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
