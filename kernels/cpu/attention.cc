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
  float* largest;  // [rows]
  float* weight;   // [rows]
  float* latents;  // [rows, latent]
};

// One block of one group.
struct Task {
  const Group* group;
  int64_t block;
};

// Lane by lane, so that the compiler vectorises it, as it does not std::max_element.
float Largest(std::span<const float> values) {
  std::array<float, kLanes> lanes;
  lanes.fill(values[0]);
  int64_t i = 0;
  for (; i + kLanes <= std::ssize(values); i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] = std::max(lanes[l], values[i + l]);
  }
  for (int64_t l = 0; i + l < std::ssize(values); ++l) lanes[l] = std::max(lanes[l], values[i + l]);
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
  Attention(Pool& pool, const MlaShape& shape, const MlaCache& cache)
      : pool_(pool), s_(shape), cache_(cache) {}

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
  bool ReadsInPlace() const { return cache_.page_positions % kBlockPositions == 0; }
  int64_t entry_bytes() const { return entry() * int64_t(SizeOf(cache_.dtype)); }
  const std::byte* Stored(const Group& group, int64_t position) const {
    const int64_t page = group.segment->pages[position / cache_.page_positions];
    return cache_.pages + page * cache_.page_bytes +
           position % cache_.page_positions * entry_bytes();
  }
  const float* Entries(const Group& group, int64_t block, int64_t count, float* together) const;
  Matrix KeyRows(const Matrix& kv_b, int64_t head) const {
    return kv_b.Rows(head * (s_.nope + s_.value), s_.nope);
  }
  Matrix ValueRows(const Matrix& kv_b, int64_t head) const {
    return kv_b.Rows(head * (s_.nope + s_.value) + s_.nope, s_.value);
  }
  Part Rows(const Part& part, int64_t row) const {
    return {part.largest + row, part.weight + row, part.latents + row * s_.latent};
  }
  Part TakePart(int64_t rows) const {
    Workspace& memory = pool_.memory();
    return {memory.Take<float>(rows).data(), memory.Take<float>(rows).data(),
            memory.Take<float>(rows * s_.latent).data()};
  }
  std::span<Group> GroupsOf(std::span<const MlaSegment> segments);
  void Absorb(std::span<const float> q, const Matrix& kv_b);
  void LayOut(std::span<const Group> groups);
  void Score(const Group& group, int64_t block, const float* entries,
             std::span<float> scores) const;
  Ahead AheadOf(const Group& group, int64_t block) const;
  void SumLatents(const Group& group, int64_t block, kernels::Rows weights, int64_t seen,
                  const float* entries, float* to) const;
  void ExpRows(float* scores, int64_t rows, int64_t seen, int64_t stride, const Part& part) const;
  void AttendBlock(const Task& task, const Part& part, int64_t share) const;
  void Add(const Task& task, const Part& part, int64_t head, int64_t heads) const;
  void OneByOne(std::span<const Group> groups);
  std::span<const Task> BlockByBlock(std::span<const Group> groups);
  void Finish(std::span<const Task> left, const Matrix& kv_b, std::span<float> out);

  Pool& pool_;
  const MlaShape s_;
  const MlaCache cache_;
  int64_t tokens_ = 0;
  int64_t group_rows_ = 0;          // of the largest group
  std::span<float> q_latent_;       // [tokens, heads, entry]
  std::span<float> laid_out_;       // of each group [rows rounded up to 16, entry]; see scores.h
  std::span<int64_t> laid_out_at_;  // [tokens]: where that of the group it begins is
  std::span<float> scores_;         // [threads, group_rows, 32]
  std::span<float> together_;       // [threads, 32, entry]
  Part all_;                        // of the rows of all groups
  std::span<const Part> parts_;     // of a thread each, or of the tasks of a wave
};

// q_latent = [W_uk^T q_nope | q_rope]: a query that meets cache entries directly.
void Attention::Absorb(std::span<const float> q, const Matrix& kv_b) {
  const int64_t q_width = s_.nope + s_.rope;
  q_latent_ = pool_.memory().Take<float>(tokens_ * s_.heads * entry());
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
  laid_out_at_ = pool_.memory().Take<int64_t>(tokens_);
  int64_t floats = 0;
  for (const Group& group : groups) {
    laid_out_at_[group.token] = floats;
    const int64_t rows = LaidOutRows(group.tokens * s_.heads);
    floats += (rows + cpu::kScoreQueries - 1) / cpu::kScoreQueries * cpu::kScoreQueries * entry();
  }
  if (floats == 0) return;
  laid_out_ = pool_.memory().Take<float>(floats);
  pool_.HandOut(std::ssize(groups), [&](int64_t i, int64_t) {
    const Group& group = groups[i];
    cpu::LayOutQueriesAvx2(q_latent_.data() + group.token * s_.heads * entry(), entry(),
                           LaidOutRows(group.tokens * s_.heads), entry(),
                           laid_out_.data() + laid_out_at_[group.token]);
  });
}

Ahead Attention::AheadOf(const Group& group, int64_t block) const {
  if (!ReadsInPlace() || block + 1 >= BlocksOf(group)) return {};
  constexpr int64_t kLineBytes = 64;
  const int64_t lines = kBlockPositions * entry_bytes() / kLineBytes;
  // The sums ask for a line with each position of a tile of 4 rows x 64 values.
  const int64_t most = (group.tokens * s_.heads + 3) / 4 * (s_.latent / 64) * kBlockPositions;
  const int64_t second = std::min(lines / 2, most);
  const std::byte* const next = Stored(group, (block + 1) * kBlockPositions);
  return {next, lines - second, next + (lines - second) * kLineBytes, second};
}

// [count, entry] of a block's first positions in fp32: in place, or put `together`.
const float* Attention::Entries(const Group& group, int64_t block, int64_t count,
                                float* together) const {
  const bool is_bf16 = cache_.dtype == DType::kBf16;
  const int64_t first = block * kBlockPositions;
  if (ReadsInPlace() && !is_bf16) return reinterpret_cast<const float*>(Stored(group, first));
  for (int64_t done = 0; done < count;) {
    const int64_t position = first + done;
    const int64_t page_left = cache_.page_positions - position % cache_.page_positions;
    const int64_t some = std::min(count - done, page_left);
    float* const to = together + done * entry();
    if (is_bf16) {
      Widen(reinterpret_cast<const Bf16*>(Stored(group, position)), some * entry(), to);
    } else {
      std::copy_n(reinterpret_cast<const float*>(Stored(group, position)), some * entry(), to);
    }
    done += some;
  }
  return together;
}

// scores [rows, positions of the block that the last token sees].
void Attention::Score(const Group& group, int64_t block, const float* entries,
                      std::span<float> scores) const {
  const int64_t rows = group.tokens * s_.heads, laid_out = LaidOutRows(rows);
  const int64_t count = std::ssize(scores) / rows;
  if (laid_out > 0) {
    const auto* const next = static_cast<const float*>(AheadOf(group, block).first);
    cpu::ScoresAvx2(laid_out_.data() + laid_out_at_[group.token], laid_out,
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
             MatrixOf(std::span(entries, count * entry()), count, entry()),
             scores.data() + laid_out * count, count);
}

// `seen` of the `stride` scores of each row.
void Attention::ExpRows(float* scores, int64_t rows, int64_t seen, int64_t stride,
                        const Part& part) const {
#if defined(__x86_64__)
  if (ActiveIsa() >= Isa::kAvx512) {
    return cpu::ExpRowsAvx512(scores, rows, seen, stride, s_.scale, part.largest, part.weight);
  }
#endif
  for (int64_t row = 0; row < rows; ++row) {
    const std::span of_row(scores + row * stride, seen);
    part.largest[row] = Largest(of_row);
    part.weight[row] = ExpScaled(of_row, part.largest[row], s_.scale);
  }
}

// to[row] = sum of `seen` latents, each times its weight.
void Attention::SumLatents(const Group& group, int64_t block, kernels::Rows weights, int64_t seen,
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
  Matrix latents = MatrixOf(std::span(entries, seen * entry()), seen, entry());
  latents.columns = s_.latent;
  TransposedRows(weights, latents, to, s_.latent);
}

void Attention::AttendBlock(const Task& task, const Part& part, int64_t share) const {
  const Group& group = *task.group;
  const int64_t most = SeenOf(group, group.tokens - 1, task.block);
  const float* const entries =
      Entries(group, task.block, most, together_.data() + share * kBlockPositions * entry());
  const std::span scores =
      scores_.subspan(share * group_rows_ * kBlockPositions, group.tokens * s_.heads * most);
  Score(group, task.block, entries, scores);
  // Tokens that see equally much of the block, all but on the last one or two, go on together.
  for (int64_t first = 0, end = 0; first < group.tokens; first = end) {
    const int64_t seen = SeenOf(group, first, task.block);
    for (end = first + 1; end < group.tokens && SeenOf(group, end, task.block) == seen;) ++end;
    if (seen <= 0) continue;
    const int64_t row = first * s_.heads, rows = (end - first) * s_.heads;
    float* const of_rows = scores.data() + row * most;
    const Part to = Rows(part, row);
    ExpRows(of_rows, rows, seen, most, to);
    SumLatents(group, task.block, {of_rows, rows, most}, seen, entries, to.latents);
  }
}

// Of `heads` heads. Blocks come in ascending order.
void Attention::Add(const Task& task, const Part& part, int64_t head, int64_t heads) const {
  const Group& group = *task.group;
  const Part all = Rows(all_, group.token * s_.heads);
  for (int64_t t = 0; t < group.tokens; ++t) {
    if (SeenOf(group, t, task.block) <= 0) continue;  // only the later ones may see a block
    for (int64_t row = t * s_.heads + head; row < t * s_.heads + head + heads; ++row) {
      const float largest = all.largest[row], own = part.largest[row];
      const float larger = std::max(largest, own);
      // exp(0) is 1: one of the two calls is enough.
      const float keep = largest == larger ? 1.0f : ExpNonPositive((largest - larger) * s_.scale);
      const float take = own == larger ? 1.0f : ExpNonPositive((own - larger) * s_.scale);
      all.largest[row] = larger;
      all.weight[row] = all.weight[row] * keep + part.weight[row] * take;
      Combine(all.latents + row * s_.latent, keep, part.latents + row * s_.latent, take, s_.latent);
    }
  }
}

void Attention::OneByOne(std::span<const Group> groups) {
  const std::span<Part> parts = pool_.memory().Take<Part>(pool_.threads());
  for (Part& part : parts) part = TakePart(group_rows_);
  // The last ones see most: they begin.
  pool_.HandOut(std::ssize(groups), [&](int64_t i, int64_t share) {
    const Group& group = groups[std::ssize(groups) - 1 - i];
    AttendBlock({&group, 0}, Rows(all_, group.token * s_.heads), share);
    for (int64_t b = 1; b < BlocksOf(group); ++b) {
      AttendBlock({&group, b}, parts[share], share);
      Add({&group, b}, parts[share], 0, s_.heads);
    }
  });
}

// A long context has thousands of blocks: their parts are made and combined some at a time. Returns
// the tasks whose parts are not combined yet.
std::span<const Task> Attention::BlockByBlock(std::span<const Group> groups) {
  const int64_t wave = kPartsAThread * pool_.threads();
  const std::span<Task> tasks = pool_.memory().Take<Task>(wave);
  const std::span<Part> parts = pool_.memory().Take<Part>(wave);
  for (Part& part : parts) part = TakePart(group_rows_);
  parts_ = parts;
  int64_t count = 0;
  for (const Group& group : groups) {
    for (int64_t b = 0; b < BlocksOf(group); ++b) {
      if (count == wave) {
        pool_.Run(s_.heads, 1, [&](int64_t head, int64_t end) {
          for (int64_t i = 0; i < wave; ++i) {
            if (tasks[i].block > 0) Add(tasks[i], parts[i], head, end - head);
          }
        });
        count = 0;
      }
      tasks[count++] = {&group, b};
      if (count < wave && (b + 1 < BlocksOf(group) || &group != &groups.back())) continue;
      // The first block's part is where the others are added.
      pool_.HandOut(count, [&](int64_t i, int64_t share) {
        const Task& task = tasks[i];
        AttendBlock(task, task.block > 0 ? parts[i] : Rows(all_, task.group->token * s_.heads),
                    share);
      });
    }
  }
  return tasks.first(count);
}

// Head by head: what is left to combine, the division by the weights' sums, the values.
void Attention::Finish(std::span<const Task> left, const Matrix& kv_b, std::span<float> out) {
  pool_.Run(s_.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < std::ssize(left); ++i) {
      if (left[i].block > 0) Add(left[i], parts_[i], begin, end - begin);
    }
    for (int64_t h = begin; h < end; ++h) {
      if (h + 1 < end) Prefetch(ValueRows(kv_b, h + 1));
      for (int64_t row = h; row < tokens_ * s_.heads; row += s_.heads) {
        const float scale = 1.0f / all_.weight[row];
        float* const sum = all_.latents + row * s_.latent;
        for (int64_t i = 0; i < s_.latent; ++i) sum[i] *= scale;
      }
      LinearRows({all_.latents + h * s_.latent, tokens_, s_.heads * s_.latent}, ValueRows(kv_b, h),
                 out.data() + h * s_.value, s_.heads * s_.value);
    }
  });
}

std::span<Group> Attention::GroupsOf(std::span<const MlaSegment> segments) {
  const int64_t together = std::max<int64_t>(1, kGroupRows / s_.heads);
  int64_t count = 0;
  for (const MlaSegment& segment : segments) count += (segment.tokens + together - 1) / together;
  const std::span<Group> groups = pool_.memory().Take<Group>(count);
  count = 0;
  for (const MlaSegment& segment : segments) {
    CHECK_LE(segment.first_position + segment.tokens,
             std::ssize(segment.pages) * cache_.page_positions);
    for (int64_t t = 0; t < segment.tokens; t += together) {
      groups[count] = {&segment, tokens_ + t, std::min(together, segment.tokens - t),
                       segment.first_position + t + 1};
      group_rows_ = std::max(group_rows_, groups[count++].tokens * s_.heads);
    }
    tokens_ += segment.tokens;
  }
  return groups;
}

void Attention::Run(std::span<const MlaSegment> segments, std::span<const float> q,
                    const Matrix& kv_b, std::span<float> out) {
  Workspace& memory = pool_.memory();
  const Workspace::Scope scope(memory);
  CHECK(cache_.dtype == DType::kF32 || cache_.dtype == DType::kBf16) << DTypeName(cache_.dtype);
  const std::span<const Group> groups = GroupsOf(segments);
  CHECK_EQ(std::ssize(q), tokens_ * s_.heads * (s_.nope + s_.rope));
  CHECK_EQ(std::ssize(out), tokens_ * s_.heads * s_.value);
  CHECK(kv_b.rows == s_.heads * (s_.nope + s_.value) && kv_b.columns == s_.latent);
  Absorb(q, kv_b);
  LayOut(groups);
  all_ = TakePart(tokens_ * s_.heads);
  scores_ = memory.Take<float>(pool_.threads() * group_rows_ * kBlockPositions);
  together_ = memory.Take<float>(pool_.threads() * kBlockPositions * entry());
  std::span<const Task> left;
  if (pool_.threads() == 1 || std::ssize(groups) >= 4 * pool_.threads()) {
    OneByOne(groups);
  } else {
    left = BlockByBlock(groups);
  }
  Finish(left, kv_b, out);
}

}  // namespace

int64_t MlaFloatsOf(const MlaShape& s, int64_t tokens, int64_t threads) {
  const int64_t entry = s.latent + s.rope, part = s.latent + 34;
  const int64_t group_rows = std::max(kGroupRows, s.heads);
  return tokens * (s.heads * (entry + part) + (s.heads + cpu::kScoreQueries) * entry + 32) +
         threads *
             (kPartsAThread * (group_rows * part + 16) + kBlockPositions * (group_rows + entry));
}

void MlaAttention(Pool& pool, const MlaShape& shape, const MlaCache& cache,
                  std::span<const MlaSegment> segments, std::span<const float> q,
                  const Matrix& kv_b, std::span<float> out) {
  Attention(pool, shape, cache).Run(segments, q, kv_b, out);
}

}  // namespace engram::kernels
