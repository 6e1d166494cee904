// Which instructions the hand-written kernels use: found out once, the best this processor has.
#pragma once

#include <string_view>

namespace engram::kernels {

// Each includes those before it. kScalar is what the compiler makes of plain loops.
enum class Isa { kScalar = 0, kAvx2 = 1, kAvx512Bf16 = 2 };

std::string_view IsaName(Isa isa);  // "scalar" | "avx2" | "avx512_bf16"
// The best this processor (and operating system) has.
Isa BestIsa();
// What the kernels use: BestIsa, or less when the environment variable ENGRAM_ISA names less.
Isa ActiveIsa();
// For tests and benchmarks: uses `isa`, at most BestIsa, from now on. Not while kernels run.
void UseIsa(Isa isa);

}  // namespace engram::kernels
