#include "memnode/ctl/make_model/random_tensor.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/base/rng.h"
#include "common/table/procedural.h"

namespace engram::ctl {
namespace {

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ull;
constexpr float kSqrt3 = 1.7320508f;

uint64_t Draw(uint64_t seed, uint64_t index) { return Mix64(seed + index * kGolden); }

// Near enough to a standard normal: four uniform 16-bit numbers added (Irwin-Hall), deviation 1.
float DrawNormal(uint64_t seed, uint64_t index) {
  const uint64_t bits = Draw(seed, index);
  const auto sum = static_cast<int32_t>((bits & 0xffff) + ((bits >> 16) & 0xffff) +
                                        ((bits >> 32) & 0xffff) + (bits >> 48));
  return static_cast<float>(sum - 2 * 0xffff) * (kSqrt3 / 65536.0f);
}

void FillNormal(const ModelTensor& tensor, uint64_t seed, uint64_t first,
                std::span<std::byte> out) {
  const TensorRule& rule = tensor.rule;
  const bool diagonal = rule.kind == TensorRule::Kind::kDiagonal;
  const uint64_t step = diagonal ? tensor.declaration.shape.at(1) + 1 : 1;
  const size_t element_bytes = SizeOf(tensor.declaration.dtype);
  for (size_t i = 0; i < out.size() / element_bytes; ++i) {
    const uint64_t index = first + i;
    const float mean = diagonal && index % step != 0 ? 0.0f : rule.mean;
    const float value = mean + rule.deviation * DrawNormal(seed, index);
    const Bf16 rounded = ToBf16(value);
    const void* bytes = element_bytes == sizeof(float) ? static_cast<const void*>(&value)
                                                       : static_cast<const void*>(&rounded);
    std::memcpy(out.data() + i * element_bytes, bytes, element_bytes);
  }
}

// Uniform bf16 rows, four values a draw: tables are most of a model's bytes.
void FillBf16Rows(const ModelTensor& tensor, uint64_t seed, uint64_t first,
                  std::span<std::byte> out) {
  const float scale = tensor.rule.deviation * kSqrt3 / 32768.0f;
  const size_t count = out.size() / sizeof(Bf16);
  for (size_t i = 0; i < count; i += 4) {
    const uint64_t bits = Draw(seed, (first + i) / 4);
    Bf16 values[4];
    for (unsigned lane = 0; lane < 4; ++lane) {
      values[lane] = ToBf16(static_cast<float>(static_cast<int16_t>(bits >> (16 * lane))) * scale);
    }
    std::memcpy(out.data() + i * sizeof(Bf16), values,
                std::min<size_t>(4, count - i) * sizeof(Bf16));
  }
}

// Any fp8 value but NaN (0x7f, 0xff), which becomes the largest number.
void FillFp8Rows(uint64_t seed, uint64_t first, std::span<std::byte> out) {
  for (size_t i = 0; i < out.size(); i += 8) {
    const uint64_t bits = Draw(seed, (first + i) / 8);
    uint8_t values[8];
    for (unsigned lane = 0; lane < 8; ++lane) {
      const auto value = static_cast<uint8_t>(bits >> (8 * lane));
      values[lane] = static_cast<uint8_t>(value ^ ((value & 0x7f) == 0x7f ? 1 : 0));
    }
    std::memcpy(out.data() + i, values, std::min<size_t>(8, out.size() - i));
  }
}

// 2^-9, 2^-8 or 2^-7: fp8 bits drawn evenly have deviation about 110, so rows come out near 1/2.
void FillScales(uint64_t seed, uint64_t first, std::span<std::byte> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<std::byte>(118 + Draw(seed, first + i) % 3);
  }
}

// Bytes from `offset` of the tensor on, which may begin and end within rows.
void FillProcedural(const ProceduralPart& part, uint64_t offset, std::span<std::byte> out) {
  std::vector<std::byte> row(part.format.row_bytes());
  const auto head_dim = static_cast<size_t>(part.format.head_dim);
  const size_t weight_bytes =
      part.format.encoding == table::RowEncoding::kBf16 ? 2 * head_dim : head_dim;
  const auto kept =
      part.scales ? std::span(row).subspan(weight_bytes) : std::span(row).first(weight_bytes);
  uint64_t number = part.first_row + offset / kept.size();
  for (size_t done = 0, at = offset % kept.size(); done < out.size(); at = 0, ++number) {
    table::FillProceduralRow(part.format, part.seed, part.layer_index, number, row);
    const size_t some = std::min(kept.size() - at, out.size() - done);
    std::memcpy(out.data() + done, kept.data() + at, some);
    done += some;
  }
}

}  // namespace

uint64_t TensorSeed(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return Mix64(seed, hash);
}

void FillTensor(const ModelTensor& tensor, uint64_t tensor_seed, uint64_t first,
                std::span<std::byte> out) {
  CHECK_EQ(first % 8, 0u);
  if (tensor.procedural) {
    const size_t element_bytes = SizeOf(tensor.declaration.dtype);
    return FillProcedural(*tensor.procedural, first * element_bytes, out);
  }
  switch (tensor.rule.kind) {
    case TensorRule::Kind::kNormal:
    case TensorRule::Kind::kDiagonal:
      CHECK(tensor.declaration.dtype == DType::kF32 || tensor.declaration.dtype == DType::kBf16);
      return FillNormal(tensor, tensor_seed, first, out);
    case TensorRule::Kind::kRow:
      if (tensor.declaration.dtype == DType::kBf16) {
        return FillBf16Rows(tensor, tensor_seed, first, out);
      }
      return FillFp8Rows(tensor_seed, first, out);
    case TensorRule::Kind::kScale:
      return FillScales(tensor_seed, first, out);
  }
}

}  // namespace engram::ctl
