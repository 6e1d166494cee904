// Which instructions the hand-written kernels use: found out once, the fastest this processor has.
#pragma once

#include <string_view>

namespace engram::kernels {

// Each includes those before it. kScalar is what the compiler makes of plain loops; it, kAvx2 and
// kAvx512 give the same bits. kAvx512Bf16 multiplies pairs of bf16 by one instruction, of which
// AMD's processors do as many a cycle as of kAvx512's fp32 ones (Zen 5: two, 547 GFLOP/s from
// registers) and Intel's a quarter (Emerald Rapids: 86 beside 176 GFLOP/s, kernels_bench).
enum class Isa { kScalar = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3 };

inline constexpr Isa kAllIsas[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

std::string_view IsaName(Isa isa);  // "scalar" | "avx2" | "avx512" | "avx512_bf16"
// By this processor and operating system.
bool IsSupported(Isa isa);
// The fastest of those.
Isa BestIsa();
// What the kernels use: the supported one that the environment variable ENGRAM_ISA names, else
// BestIsa. Any other name is said on stderr.
Isa ActiveIsa();
// For tests and benchmarks: uses `isa`, or BestIsa where it is not supported, from now on. Not
// while kernels run.
void UseIsa(Isa isa);

}  // namespace engram::kernels
