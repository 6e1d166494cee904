#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test.   deploy/test.sh [PRESET]   (release, dev or tsan)
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
deploy/install-deps.sh
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset"
ctest --preset "$preset"
