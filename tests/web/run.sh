#!/usr/bin/env bash
# Runs one of these tests with node's own runner.   tests/web/run.sh NAME BUILD_DIR
# Packages are installed once, into BUILD_DIR/web. Exit code 77 and a line with SKIPPED when node, npm
# or (for the page) Chromium is not installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1 build=$(cd "$2" && pwd)
for program in node npm; do
  command -v $program >/dev/null || { echo "SKIPPED: no $program (deploy/install-deps.sh installs it)"; exit 77; }
done
if [ "$name" = page ] && [ ! -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
  echo "SKIPPED: no Chromium (deploy/install-deps.sh installs it)"; exit 77
fi
mkdir -p "$build/web"
exec 9>"$build/web/lock"
flock 9
if ! cmp -s "$here/package-lock.json" "$build/web/installed"; then
  cp "$here"/package*.json "$build/web/"
  (cd "$build/web" && npm ci --ignore-scripts --no-audit --no-fund >npm.log 2>&1) || { tail -20 "$build/web/npm.log"; exit 1; }
  cp "$here/package-lock.json" "$build/web/installed"
fi
cp "$here"/*.mjs "$build/web/"
flock -u 9
export ENGRAM_BIN_DIR=$build/bin ENGRAM_SOURCE_DIR=$here/../.. SCREENSHOT=$build/web/page.png
exec node --test --test-reporter=spec "$build/web/$name.test.mjs"
