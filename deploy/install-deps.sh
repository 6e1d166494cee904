#!/usr/bin/env bash
# Installs every package the build, the tests and the demo need. Debian 12; apt only.
# Idempotent: when everything is present it asks the package manager nothing and takes < 1 s.
#
#   deploy/install-deps.sh [--check]     --check: install nothing, list what is missing, exit 1 if any
set -euo pipefail

packages=(
  build-essential cmake ninja-build pkg-config ccache git ca-certificates # build
  libboost1.81-dev libboost-json1.81-dev    # Asio (control, HTTP), JSON
  libucx-dev                                # RDMA data plane
  librocksdb-dev                            # durable row store
  libssl-dev                                # SHA-256 digests, TLS
  libyaml-cpp-dev libcli11-dev libspdlog-dev libfmt-dev prometheus-cpp-dev
  libicu-dev libpcre2-dev                   # tokenizer: normalisation, split patterns
  libopenmpi-dev openmpi-bin                # ranks of one engine
  libgtest-dev libgmock-dev libbenchmark-dev
  clang-14 libclang-rt-14-dev               # libFuzzer (tests/fuzz)
  gnuplot-nox                               # --plot of engram-load and engramctl hotset, and its tests
  clang-format-14 clang-tidy-16             # gates (deploy/check.sh)
  curl jq openssl                           # demo, end-to-end scripts, certificates of tests
  iproute2                                  # namespaces of tests/chaos
  etcd-server                               # tests of a cluster that an etcd keeps (tests/memnode/cluster)
  chromium                                  # the engine's page (tests/web)
)
# node and npm (tests/web): Debian's, unless others are installed already.
command -v npm >/dev/null || packages+=(nodejs npm)
command -v python3 >/dev/null || packages+=(python3) # a check of the kernels, tests/bench/model

# Ubuntu 24.04 (untested): the same packages under other names.
if [ -r /etc/os-release ] && . /etc/os-release && [ "${ID:-}" = ubuntu ]; then
  packages=("${packages[@]/libboost1.81-dev/libboost1.83-dev}")
  packages=("${packages[@]/libboost-json1.81-dev/libboost-json1.83-dev}")
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "${1:-}" = --check ]; then
  echo "install-deps: missing: ${missing[*]}" >&2
  exit 1
fi

command -v apt-get >/dev/null || {
  echo "install-deps: apt-get not found; install by hand: ${missing[*]}" >&2
  exit 1
}
sudo=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "install-deps: not root and no sudo; as root run: apt-get install ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
echo "install-deps: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
# Tests start an etcd of their own; the package's service is not wanted here.
if [[ " ${missing[*]} " = *" etcd-server "* ]] && command -v systemctl >/dev/null; then
  "${sudo[@]}" systemctl disable --now etcd >/dev/null 2>&1 || true
fi
