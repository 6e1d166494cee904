#!/usr/bin/env bash
# Fuzzes every target with libFuzzer, ASan and UBSan over its committed corpus.
#   tests/fuzz/run.sh [SECONDS [BUILD_DIR]]     default: 10 seconds each, all at once, of build/release
# A failing input is left in BUILD_DIR/fuzz/crashes-TARGET; once fixed it belongs into corpus/TARGET.
# Exit code 77 and a line with SKIPPED where CMake found no clang with libFuzzer.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-10}
build=${2:-build/release}/fuzz
targets=(wire control challenge tcp_link http safetensors api etcd)

if [ ! -x "$build/wire" ]; then
  echo "SKIPPED: no fuzzers in $build: they need clang-14 and libclang-rt-14-dev, then cmake --build"
  exit 77
fi

declare -A running=()
for target in "${targets[@]}"; do
  mkdir -p "$build/new-$target" "$build/crashes-$target"
  # New inputs are kept between runs, beside the committed ones.
  "$build/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 \
    -print_final_stats=1 -artifact_prefix="$build/crashes-$target/" \
    "$build/new-$target" "tests/fuzz/corpus/$target" >"$build/$target.log" 2>&1 &
  running[$target]=$!
done
failed=0
for target in "${!running[@]}"; do
  if wait "${running[$target]}"; then
    echo "$target: $(grep -o 'stat::number_of_executed_units: [0-9]*' "$build/$target.log" |
      grep -o '[0-9]*$') inputs in $seconds s, none failed"
  else
    failed=1
    echo "$target: FAILED" >&2
    tail -n 40 "$build/$target.log" >&2
  fi
done
exit $failed
