// Multi-head latent attention over pages of the cache, absorbed, for prefill and decode alike, so
// that a result never depends on how a prompt was cut. The heads of a token share every load of a
// block of positions, and so do a few tokens of one sequence: a group. Many groups are handed out
// one by one; few are split by block. Either way a block's part is computed by itself and the parts
// are combined in ascending order: the same bits. Blocks are of one size and begin at its multiples
// whatever the size of a page: pages of whole blocks are read in place, of others a block's entries
// are first put together.
#include <algorithm>
#include <array>
#include <cmath>

#include "common/base/check.h"
#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/row_product.h"
#include "kernels/cpu/scores.h"
#include "kernels/exp.h"
#include "kernels/isa.h"
#include "kernels/ops.h"
#include "kernels/reduce.h"

namespace engram::kernels {
namespace {

constexpr int64_t kBlockPositions = 32;
constexpr int64_t kPartsAThread = 16;  // held at once when few tokens are split by block

// Rows (heads of tokens) that visit a block together, so that few heads fill blocks of queries too:
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

// The block behind one, which is asked for meanwhile: so many lines with the scores, the others
// with the sums, so that neither asks for more than memory gives.
struct Ahead {
  const void* first = nullptr;
  int64_t first_lines = 0;
  const void* second = nullptr;
  int64_t second_lines = 0;
};

// What one block, or all so far, add to a group: per row (head of a token) the largest score, the
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

void Combine(float* sum, float keep, const float* more, float take, int64_t count) {
#if defined(__x86_64__)
  if (ActiveIsa() >= Isa::kAvx512) return cpu::CombineAvx512(sum, keep, more, take, count);
#endif
  for (int64_t i = 0; i < count; ++i) sum[i] = sum[i] * keep + more[i] * take;
}

void Widen(const Bf16* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = ToFloat(from[i]);
}

class Attention {
 public:
  Attention(Pool& pool, const MlaShape& shape, int64_t page_positions)
      : pool_(pool), s_(shape), page_positions_(page_positions) {}

  void Run(std::span<const MlaSegment> segments, std::span<const float> q, const Matrix& kv_b,
           std::span<float> out);

 private:
  int64_t entry() const { return s_.latent + s_.rope; }
  static int64_t BlocksOf(const Group& group) {
    return (group.positions + group.tokens - 1 + kBlockPositions - 1) / kBlockPositions;
  }
  // Positions of a block that a token of the group sees; 0 or less when it ends before.
  static int64_t SeenOf(const Group& group, int64_t token, int64_t block) {
    return std::min(kBlockPositions, group.positions + token - block * kBlockPositions);
  }
  bool ReadsInPlace() const { return page_positions_ % kBlockPositions == 0; }
  int64_t EntryBytes(const Group& group) const {
    return entry() * static_cast<int64_t>(SizeOf(group.segment->dtype));
  }
  const std::byte* Stored(const Group& group, int64_t position) const {
    const void* const page = group.segment->pages[static_cast<size_t>(position / page_positions_)];
    return static_cast<const std::byte*>(page) + position % page_positions_ * EntryBytes(group);
  }
  const float* Entries(const Group& group, int64_t block, int64_t count) const;
  Matrix KeyRows(const Matrix& kv_b, int64_t head) const {
    return kv_b.Rows(head * (s_.nope + s_.value), s_.nope);
  }
  Matrix ValueRows(const Matrix& kv_b, int64_t head) const {
    return kv_b.Rows(head * (s_.nope + s_.value) + s_.nope, s_.value);
  }
  void Absorb(std::span<const float> q, const Matrix& kv_b);
  void LayOut(std::span<const Group> groups);
  void Score(const Group& group, int64_t block, const float* entries,
             std::span<float> scores) const;
  Ahead AheadOf(const Group& group, int64_t block) const;
  void SumLatents(const Group& group, int64_t block, Rows weights, int64_t seen,
                  const float* entries, float* to) const;
  void ExpRows(float* scores, int64_t begin, int64_t end, int64_t seen, int64_t stride,
               Part& part) const;
  void AttendBlock(const Group& group, int64_t block, Part& part) const;
  void Add(const Group& group, int64_t block, Part& part, Part& all) const;
  void Finish(const Group& group, const Part& all);
  void OneByOne(std::span<const Group> groups);
  void BlockByBlock(std::span<const Group> groups);

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

Ahead Attention::AheadOf(const Group& group, int64_t block) const {
  if (!ReadsInPlace() || block + 1 >= BlocksOf(group)) return {};
  constexpr int64_t kLineBytes = 64;
  const int64_t lines = kBlockPositions * EntryBytes(group) / kLineBytes;
  // The sums ask for a line with each position of a tile of 4 rows x 64 values.
  const int64_t most = (group.tokens * s_.heads + 3) / 4 * (s_.latent / 64) * kBlockPositions;
  const int64_t second = std::min(lines / 2, most);
  const std::byte* const next = Stored(group, (block + 1) * kBlockPositions);
  return {next, lines - second, next + (lines - second) * kLineBytes, second};
}

// [count, entry] of a block's first positions in fp32; a thread's until it asks again.
const float* Attention::Entries(const Group& group, int64_t block, int64_t count) const {
  const bool is_bf16 = group.segment->dtype == DType::kBf16;
  const int64_t first = block * kBlockPositions;
  if (ReadsInPlace() && !is_bf16) return reinterpret_cast<const float*>(Stored(group, first));
  static thread_local std::vector<float> together;
  together.resize(static_cast<size_t>(kBlockPositions * entry()));
  for (int64_t done = 0; done < count;) {
    const int64_t position = first + done;
    const int64_t some = std::min(count - done, page_positions_ - position % page_positions_);
    float* const to = together.data() + done * entry();
    if (is_bf16) {
      Widen(reinterpret_cast<const Bf16*>(Stored(group, position)), some * entry(), to);
    } else {
      std::copy_n(reinterpret_cast<const float*>(Stored(group, position)), some * entry(), to);
    }
    done += some;
  }
  return together.data();
}

// scores [rows, positions of the block that the last token sees].
void Attention::Score(const Group& group, int64_t block, const float* entries,
                      std::span<float> scores) const {
  const int64_t rows = group.tokens * s_.heads, laid_out = LaidOutRows(rows);
  const int64_t count = static_cast<int64_t>(scores.size()) / rows;
  if (laid_out > 0) {
    const auto* const next = static_cast<const float*>(AheadOf(group, block).first);
    cpu::ScoresAvx2(laid_out_.data() + laid_out_at_[static_cast<size_t>(group.token)], laid_out,
                    {entries, count, entry(), entry(), next}, scores.data(), count);
  }
  if (laid_out == rows) return;
  const int64_t row = group.token * s_.heads + laid_out;
#if defined(__x86_64__)
  if (ActiveIsa() >= Isa::kAvx512) {
    const Ahead ahead = AheadOf(group, block);
    return cpu::LinearRowsAvx512(
        {q_latent_.data() + row * entry(), rows, entry()},
        {entries, false, count, entry(), entry(), ahead.first, ahead.first_lines}, scores.data(),
        count);
  }
#endif
  LinearRows({q_latent_.data() + row * entry(), rows - laid_out, entry()},
             MatrixOf({entries, static_cast<size_t>(count * entry())}, count, entry()),
             scores.data() + laid_out * count, count);
}

// `seen` of the `stride` scores of rows [begin, end).
void Attention::ExpRows(float* scores, int64_t begin, int64_t end, int64_t seen, int64_t stride,
                        Part& part) const {
#if defined(__x86_64__)
  if (ActiveIsa() >= Isa::kAvx512) {
    return cpu::ExpRowsAvx512(scores + begin * stride, end - begin, seen, stride, s_.scale,
                              part.largest.data() + begin, part.weight.data() + begin);
  }
#endif
  for (int64_t row = begin; row < end; ++row) {
    const std::span<float> of_row(scores + row * stride, static_cast<size_t>(seen));
    const float largest = Largest(of_row);
    part.largest[static_cast<size_t>(row)] = largest;
    part.weight[static_cast<size_t>(row)] = ExpScaled(of_row, largest, s_.scale);
  }
}

// to[row] = sum of `seen` latents, each times its weight.
void Attention::SumLatents(const Group& group, int64_t block, Rows weights, int64_t seen,
                           const float* entries, float* to) const {
#if defined(__x86_64__)
  if (ActiveIsa() >= Isa::kAvx512) {
    const Ahead ahead = AheadOf(group, block);
    return cpu::TransposedRowsAvx512(
        {weights.data, weights.count, weights.stride},
        {entries, false, seen, s_.latent, entry(), ahead.second, ahead.second_lines}, to,
        s_.latent);
  }
#endif
  Matrix latents = MatrixOf({entries, static_cast<size_t>(seen * entry())}, seen, entry());
  latents.columns = s_.latent;
  TransposedRows(weights, latents, to, s_.latent);
}

void Attention::AttendBlock(const Group& group, int64_t block, Part& part) const {
  static thread_local std::vector<float> scores;
  const int64_t most = SeenOf(group, group.tokens - 1, block);
  const float* const entries = Entries(group, block, most);
  part.Resize(group.tokens * s_.heads, s_.latent);
  scores.resize(static_cast<size_t>(group.tokens * s_.heads * most));
  Score(group, block, entries, scores);
  // Tokens that see equally much of the block, all but on the last one or two, go on together.
  for (int64_t first = 0, end = 0; first < group.tokens; first = end) {
    const int64_t seen = SeenOf(group, first, block);
    for (end = first + 1; end < group.tokens && SeenOf(group, end, block) == seen;) ++end;
    if (seen <= 0) continue;
    ExpRows(scores.data(), first * s_.heads, end * s_.heads, seen, most, part);
    const int64_t row = first * s_.heads;
    SumLatents(group, block, {scores.data() + row * most, (end - first) * s_.heads, most}, seen,
               entries, part.latents.data() + row * s_.latent);
  }
}

// Blocks come in ascending order; every token sees block 0. Leaves `part` to be written again.
void Attention::Add(const Group& group, int64_t block, Part& part, Part& all) const {
  if (block == 0) return std::swap(part, all);
  // Only the later tokens may see a block.
  int64_t first = 0;
  while (SeenOf(group, first, block) <= 0) ++first;
  for (int64_t row = first * s_.heads; row < group.tokens * s_.heads; ++row) {
    float& largest = all.largest[static_cast<size_t>(row)];
    float& weight = all.weight[static_cast<size_t>(row)];
    const float own = part.largest[static_cast<size_t>(row)];
    const float larger = std::max(largest, own);
    // exp(0) is 1: one of the two calls is enough.
    const float keep = largest == larger ? 1.0f : ExpNonPositive((largest - larger) * s_.scale);
    const float take = own == larger ? 1.0f : ExpNonPositive((own - larger) * s_.scale);
    largest = larger;
    weight = weight * keep + part.weight[static_cast<size_t>(row)] * take;
    float* const sum = all.latents.data() + row * s_.latent;
    const float* const more = part.latents.data() + row * s_.latent;
    Combine(sum, keep, more, take, s_.latent);
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
    for (int64_t b = 0; b < BlocksOf(group); ++b) {
      AttendBlock(group, b, part);
      Add(group, b, part, all);
    }
    Finish(group, all);
  });
}

void Attention::BlockByBlock(std::span<const Group> groups) {
  struct Task {
    const Group* group;
    int64_t block;
  };
  std::vector<Task> tasks;
  for (const Group& group : groups) {
    for (int64_t b = 0; b < BlocksOf(group); ++b) tasks.push_back({&group, b});
  }
  // A long context has thousands of blocks: their parts are made and combined some at a time.
  const size_t wave = static_cast<size_t>(kPartsAThread * pool_.threads());
  std::vector<Part> parts(std::min(wave, tasks.size()));
  Part all;
  for (size_t first = 0; first < tasks.size(); first += wave) {
    const size_t count = std::min(wave, tasks.size() - first);
    pool_.HandOut(static_cast<int64_t>(count), [&](int64_t i) {
      const Task& task = tasks[first + static_cast<size_t>(i)];
      AttendBlock(*task.group, task.block, parts[static_cast<size_t>(i)]);
    });
    for (size_t i = 0; i < count; ++i) {
      const Task& task = tasks[first + i];
      Add(*task.group, task.block, parts[i], all);
      if (task.block + 1 == BlocksOf(*task.group)) Finish(*task.group, all);
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
    CHECK(segment.dtype == DType::kF32 || segment.dtype == DType::kBf16)
        << DTypeName(segment.dtype);
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
    BlockByBlock(groups);
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
