#!/usr/bin/env bash
# Shows what is large: lines of the product by folder, and files of more than 400 lines.
set -euo pipefail
cd "$(dirname "$0")/../.."
for folder in common kernels memnode compute tests; do
  find $folder -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | xargs cat | wc -l |
    xargs printf '%-9s %6d lines\n' $folder
done
find common kernels memnode compute tests \( -name '*.cc' -o -name '*.h' \) -print0 | xargs -0 wc -l |
  awk '$2 != "total" && $1 > 400' | sort -rn
