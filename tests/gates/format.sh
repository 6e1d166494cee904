#!/usr/bin/env bash
# Every source is as clang-format 14 writes it.   tests/gates/format.sh [--fix]
# Exit code 77 and a line with SKIPPED when there is no clang-format-14.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v clang-format-14 >/dev/null || { echo "SKIPPED: no clang-format-14 (deploy/install-deps.sh installs it)"; exit 77; }
mode=(--dry-run -Werror)
if [ "${1:-}" = --fix ]; then mode=(-i); fi
find common kernels memnode compute tests -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' |
  xargs -P "$(nproc)" -n 50 clang-format-14 "${mode[@]}"
