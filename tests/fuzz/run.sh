#!/usr/bin/env bash
# Fuzzes every target with libFuzzer, ASan and UBSan over its committed corpus.
#   tests/fuzz/run.sh [SECONDS [BUILD_DIR]]     default: 10 seconds each, all at once
# A failing input is left in BUILD_DIR/crashes-TARGET; once fixed it belongs into corpus/TARGET.
# Exit code 77 and a line with SKIPPED when there is no clang-14 with its runtime.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-10}
build=${2:-build/fuzz}
clang=${FUZZ_CLANGXX:-clang++-14}

flags=(-std=c++20 -g -O1 -I. -march=x86-64-v3 -fno-omit-frame-pointer -fno-sanitize-recover=all
  -fsanitize=fuzzer-no-link,address,undefined -DFMT_HEADER_ONLY)
common=(common/base/check.cc common/base/clock.cc common/base/crc32c.cc common/base/status.cc common/io/read_file.cc)
json=(common/io/json.cc common/io/object_reader.cc common/net/control/messages.cc common/table/identity.cc
  common/table/layout.cc common/table/numpy_rng.cc common/table/placement.cc common/table/prime.cc)
declare -A sources=(
  [wire]="common/net/wire.cc"
  [control]="${json[*]}"
  [challenge]="common/net/tcp/challenge.cc"
  [tcp_link]="common/base/buffer.cc common/net/tcp/security.cc common/net/tcp/link.cc common/net/tcp/stream.cc
    common/net/tcp/tls.cc"
  [http]="common/net/http/body.cc common/net/http/connection.cc common/net/http/head.cc"
  [api]="compute/api/api_error.cc compute/api/api_request.cc compute/api/chat_template.cc compute/api/field_reader.cc
    compute/api/request_fields.cc compute/api/text_stream.cc compute/engine/sampler.cc kernels/plain/logits.cc
    common/config/nearest.cc common/io/json.cc common/table/unicode.cc common/text/added_tokens.cc common/text/bpe.cc
    common/text/bpe_trainer.cc common/text/byte_level.cc common/text/pretokenizer.cc common/text/tokenizer.cc
    common/text/tokenizer_loader.cc common/text/utf8.cc"
  [safetensors]="common/checkpoint/checkpoint.cc common/io/json.cc common/io/mmap_file.cc common/checkpoint/safetensors.cc"
)

mkdir -p "$build"
if ! echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' |
  "$clang" -fsanitize=fuzzer,address,undefined -x c++ - -o "$build/probe" 2>"$build/probe.log"; then
  echo "SKIPPED: fuzzing needs $clang and its runtime (apt-get install clang-14 libclang-rt-14-dev)"
  exit 77
fi

object_of() { echo "$build/${1//\//_}.o"; }

ccache=$(command -v ccache || true)
for target in "${!sources[@]}"; do
  printf '%s\n' "tests/fuzz/${target}_fuzz.cc" "${common[@]}" ${sources[$target]}
done | sort -u | while read -r source; do
  printf '%s\0' "$ccache $clang ${flags[*]} -c $source -o $(object_of "$source")"
done | xargs -0 -P "$(nproc)" -I '{}' bash -c '{}'
for target in "${!sources[@]}"; do
  objects=()
  for source in "tests/fuzz/${target}_fuzz.cc" "${common[@]}" ${sources[$target]}; do
    objects+=("$(object_of "$source")")
  done
  "$clang" "${flags[@]}" -fsanitize=fuzzer "${objects[@]}" -o "$build/$target" -lboost_json -licuuc -lssl -lcrypto -lpcre2-8
done

declare -A running=()
for target in "${!sources[@]}"; do
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
