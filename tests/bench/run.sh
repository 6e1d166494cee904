#!/usr/bin/env bash
# Runs benchmarks and keeps what they say. Installs nothing: what is missing is reported as SKIPPED.
#
#   tests/bench/run.sh peers|rows|all [--out DIR] [--build DIR] [--quick]
#
#   peers   our node beside Redis, memcached and RocksDB: one batch outstanding, then four
#   rows    our read paths beside their ceilings, and the cost of a row by table size
#   --out   where the results go (default: bench-results-DATE in the build folder)
#   --build a build folder with the benchmarks in bin/ (default: build/release)
#   --quick short rounds on small tables: shows that everything works, says nothing about speed
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)

usage() {
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 1
}

what='' out='' build=$root/build/release quick=0
while [ $# -gt 0 ]; do
  case $1 in
    peers | rows | all) what=$1 ;;
    --out) out=${2:?--out needs a folder} && shift ;;
    --build) build=${2:?--build needs a folder} && shift ;;
    --quick) quick=1 ;;
    *) usage ;;
  esac
  shift
done
[ -n "$what" ] || usage
programs=(peers_bench rows_bench)
[ "$what" = all ] || programs=("${what}_bench")
for program in "${programs[@]}"; do
  [ -x "$build/bin/$program" ] && continue
  echo "run.sh: no $build/bin/$program; build it: cmake --build $build --target $program" >&2
  exit 1
done
out=${out:-$build/bench-results-$(date +%Y%m%d-%H%M%S)}
mkdir -p "$out"

environment() {
  echo "date      $(date --iso-8601=seconds)"
  echo "commit    $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo none)$(git -C "$root" diff --quiet HEAD 2>/dev/null || echo ' with changes')"
  echo "cpu       $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores"
  echo "memory    $(sed -n 's/^MemAvailable: *//p' /proc/meminfo) available of $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
  echo "kernel    $(uname -r)"
  echo "governor  $(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null || echo unknown)"
  echo "thp       $(cat /sys/kernel/mm/transparent_hugepage/enabled), shared memory $(cat /sys/kernel/mm/transparent_hugepage/shmem_enabled)"
  echo "hugetlb   $(sed -n 's/^HugePages_Free: *//p' /proc/meminfo) free"
  echo "load      $(cat /proc/loadavg)"
}

run() { # run NAME PROGRAM ARGUMENTS...
  local name=$1
  shift
  echo
  echo "== $name: $*"
  "$build/bin/$1" "${@:2}" --json "$out/$name.json" | tee "$out/$name.txt"
}

peers() {
  local small=()
  [ $quick = 0 ] || small=(--rows 100000 --rounds 2 --seconds 0.05 --warm-up 0.05)
  run peers-depth1 peers_bench --depth 1 "${small[@]}"
  run peers-depth4 peers_bench --depth 4 "${small[@]}"
}

rows() {
  local arguments=(--sizes 64,256,1024,4096,16384)
  [ $quick = 0 ] || arguments=(--table-mib 64 --rounds 2 --seconds 0.05 --warm-up 0.05 --sizes 16,64)
  run rows rows_bench "${arguments[@]}"
}

environment | tee "$out/environment.txt"
case $what in
  peers) peers ;;
  rows) rows ;;
  all) peers && rows ;;
esac
echo
echo "results in $out"
