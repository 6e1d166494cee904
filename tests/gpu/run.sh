#!/usr/bin/env bash
# Checks every Engram operation on this machine's GPU against the reference and times it.
#   tests/gpu/run.sh [BUILD_DIR]     in a build folder (default build/release): makes the bundle and runs it
#   ./run.sh                         in an unpacked bundle, on any x86-64 Linux with glibc >= 2.36 and a driver
# The report goes to tests/gpu/reports/DEVICE.txt (in a bundle: report.txt). Exit code 77: no GPU here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -x "$here/bin/engram-gpu-check" ]; then
  exec "$here/bin/engram-gpu-check" "$here/report.txt"
fi
build=$(cd "${1:-$here/../../build/release}" && pwd)
cmake --build "$build" --target engram-gpu-check
rm -rf "$build/gpu-bundle"
cmake --install "$build" --component gpu-check --prefix "$build/gpu-bundle" >/dev/null
status=0
env -i HOME=/ "$build/gpu-bundle/run.sh" || status=$?
if [ "$status" = 0 ]; then
  mkdir -p "$here/reports"
  device=$(sed -n 's/^device: //p' "$build/gpu-bundle/report.txt" | tr -c 'A-Za-z0-9\n' '-')
  cp "$build/gpu-bundle/report.txt" "$here/reports/$device.txt"
  echo "report: tests/gpu/reports/$device.txt"
fi
exit "$status"
