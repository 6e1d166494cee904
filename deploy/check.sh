#!/usr/bin/env bash
# Every gate that a tool can judge: the fast ones, which deploy/test.sh runs too, and clang-tidy over the product.
# Run it before an issue is closed.
#
#   deploy/check.sh [FILE...]      clang-tidy only of these sources; default: all of the product (half an hour on two cores)
#
# Exit code 1 when a gate does not hold. Sizes are shown for a reader to judge.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
gate() {  # name, command...
  local name=$1; shift
  echo "== $name"
  "$@" || { echo "$name: FAILED" >&2; failed=1; }
}

deploy/install-deps.sh || exit 1
# One compilation for each source, which is what clang-tidy reads.
build=build/check
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DENGRAM_UNITY=OFF >/dev/null || exit 1

gate format tests/gates/format.sh
gate "dead declarations" tests/gates/dead_declarations.py
floors() { cmake --build $build --target floors_test >/dev/null && $build/bin/floors_test --gtest_brief=1; }
gate floors floors
spills() { cmake --build $build --target kernels spilling >/dev/null && ctest --test-dir $build -R spill --output-on-failure; }
gate "spilled registers" spills
tidy() {
  local files=("$@")
  [ ${#files[@]} -gt 0 ] || mapfile -t files < <(find common kernels memnode compute -name '*.cc')
  printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -n 1 clang-tidy-14 --quiet -p $build
}
gate clang-tidy tidy "$@"
gate sizes tests/gates/sizes.sh
exit $failed
