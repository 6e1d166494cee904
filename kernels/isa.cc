#include "kernels/isa.h"

#include <algorithm>
#include <cstdlib>

namespace engram::kernels {
namespace {

Isa FirstIsa() {
  const char* const wanted = std::getenv("ENGRAM_ISA");
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2}) {
    if (wanted != nullptr && wanted == IsaName(isa)) return std::min(isa, BestIsa());
  }
  return BestIsa();
}

Isa& Current() {
  static Isa isa = FirstIsa();
  return isa;
}

}  // namespace

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "?";
}

Isa BestIsa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    return Isa::kAvx512Bf16;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
#endif
  return Isa::kScalar;
}

Isa ActiveIsa() { return Current(); }

void UseIsa(Isa isa) { Current() = std::min(isa, BestIsa()); }

}  // namespace engram::kernels
