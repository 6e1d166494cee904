#!/usr/bin/env bash
# Every gate that a tool can judge: the fast ones, which deploy/test.sh runs too, and clang-tidy over the product.
# Run it before an issue is closed.
#
#   deploy/check.sh [FILE...]      clang-tidy only of what is compiled with these sources; default: all of the product
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
build=build/release
cmake --preset release >/dev/null || exit 1

gate format tests/gates/format.sh
gate "dead declarations" tests/gates/dead_declarations.py
floors() { cmake --build $build --target floors_test >/dev/null && $build/bin/floors_test --gtest_brief=1; }
gate floors floors
spills() { cmake --build $build --target kernels spilling >/dev/null && ctest --test-dir $build -R spill --output-on-failure; }
gate "spilled registers" spills
# The units that the compiler sees, most of six sources, whose headers are read once: eighteen minutes of one
# core, and three times that source by source. Without a flag of g++ that clang does not know.
tidy() {
  local units named=()
  mkdir -p $build/tidy
  jq 'map(.command |= sub(" -fira-loop-pressure"; ""))' $build/compile_commands.json >$build/tidy/compile_commands.json
  mapfile -t units < <(jq -r '.[].file' $build/tidy/compile_commands.json | sort -u |
    grep -E "^$PWD/($build/)?(common|kernels|memnode|compute)/.*\.(cc|cxx)$")
  for unit in "${units[@]}"; do
    for file in "$@"; do
      { [ "$unit" = "$PWD/$file" ] || grep -qF "\"$PWD/$file\"" "$unit"; } && named+=("$unit") && break
    done
  done
  [ $# -eq 0 ] || units=("${named[@]}")
  [ ${#units[@]} -gt 0 ] || { echo "no source of the product among: $*" >&2; return 1; }
  printf '%s\0' "${units[@]}" | xargs -0 -P "$(nproc)" -n 1 clang-tidy-16 --quiet -p $build/tidy 2>&1 |
    sed '/warnings\? generated\.$/d'
}
gate clang-tidy tidy "$@"
gate sizes tests/gates/sizes.sh
exit $failed
