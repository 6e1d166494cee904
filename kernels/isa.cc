#include "kernels/isa.h"

#include <cstdio>
#include <cstdlib>

namespace engram::kernels {
namespace {

Isa FirstIsa() {
  const char* const wanted = std::getenv("ENGRAM_ISA");
  if (wanted == nullptr) return BestIsa();
  for (const Isa isa : kAllIsas) {
    if (wanted == IsaName(isa) && IsSupported(isa)) return isa;
  }
  std::fprintf(stderr, "ENGRAM_ISA=%s: no instructions of that name on this processor; using %s\n",
               wanted, IsaName(BestIsa()).data());
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
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "?";
}

bool IsSupported(Isa isa) {
  if (isa == Isa::kScalar) return true;
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return false;
  if (isa == Isa::kAvx2) return true;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
    return false;
  }
  return isa == Isa::kAvx512 || __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

Isa BestIsa() {
#if defined(__x86_64__)
  if (IsSupported(Isa::kAvx512Bf16) && __builtin_cpu_is("amd")) return Isa::kAvx512Bf16;
#endif
  for (const Isa isa : {Isa::kAvx512, Isa::kAvx2}) {
    if (IsSupported(isa)) return isa;
  }
  return Isa::kScalar;
}

Isa ActiveIsa() { return Current(); }

void UseIsa(Isa isa) { Current() = IsSupported(isa) ? isa : BestIsa(); }

}  // namespace engram::kernels
