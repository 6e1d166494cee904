#!/usr/bin/env bash
# Runs a program in a small virtual machine that has an RDMA device: Debian's own kernel under
# qemu's emulation with SoftRoCE (rdma_rxe) over a dummy network device. Needs neither root nor RDMA
# nor KVM on the host, and installs nothing: packages the host lacks are unpacked into a cache
# folder (about 150 MB below $XDG_CACHE_HOME or ~/.cache).
#
#   run_in_vm.sh [--timeout SECONDS] [--memory MIB] [--file FILE]... -- PROGRAM [ARGUMENT]...
#
# PROGRAM and every --file appear in the guest under the same absolute path, with the shared
# libraries they need. In the guest: root, busybox, lo, rxe0 on dummy0 (10.77.0.1), a writable /tmp.
# Exit status: the program's; 124 out of time; 125 the machine failed (its console's tail is shown);
# 77 SKIPPED, qemu or a package cannot be had here. ENGRAM_RDMA_VM=required turns 77 into 125,
# ENGRAM_RDMA_VM=off skips at once.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

limit=120 memory=768 files=()
while [ $# -gt 0 ]; do
  case $1 in
    --timeout) limit=$2; shift 2 ;;
    --memory) memory=$2; shift 2 ;;
    --file) files+=("$(realpath "$2")"); shift 2 ;;
    --) shift; break ;;
    *) echo "run_in_vm: unknown option $1" >&2; exit 2 ;;
  esac
done
[ $# -gt 0 ] || { echo "run_in_vm: no program given" >&2; exit 2; }
program=$(realpath "$1"); shift

say() { echo "run_in_vm: $*" >&2; }
skip() {
  if [ "${ENGRAM_RDMA_VM:-}" = required ]; then
    say "cannot run, and ENGRAM_RDMA_VM=required: $*"
    exit 125
  fi
  echo "SKIPPED: no RDMA test ran: $*" >&2
  exit 77
}
[ "${ENGRAM_RDMA_VM:-}" != off ] || skip "switched off by ENGRAM_RDMA_VM=off"
[ "$(uname -m)" = x86_64 ] || skip "the virtual machine is x86_64, this host is $(uname -m)"
for tool in apt-get apt-cache dpkg-deb ldd flock timeout tar; do
  command -v $tool >/dev/null || skip "$tool is not here; packages are fetched and unpacked with it"
done

cache=${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/engram-mesh/rdma-vm-1
system=$cache/system   # unpacked packages the host lacks
kernel=$cache/kernel   # boot/vmlinuz-*, lib/modules/*
triplet=x86_64-linux-gnu
mkdir -p "$cache" 2>/dev/null || skip "cannot write $cache"

# --- packages -------------------------------------------------------------------------------------
apt_options=(-o Acquire::http::Timeout=10 -o Acquire::Retries=1 -o APT::Sandbox::User=root)
apt() { apt-get "${apt_options[@]}" "$@"; }
busybox_fits() { command -v busybox >/dev/null && busybox --list | grep -x depmod >/dev/null; }
wanted_packages() {  # what this host lacks, with dependencies
  local want=()
  command -v qemu-system-x86_64 >/dev/null || want+=(qemu-system-x86 seabios)
  busybox_fits || want+=(busybox-static)
  command -v rdma >/dev/null || want+=(iproute2)
  compgen -G "/usr/lib/$triplet/libibverbs/librxe-*.so" >/dev/null || want+=(ibverbs-providers)
  [ ${#want[@]} -eq 0 ] ||
    apt install -s --no-install-recommends "${want[@]}" | awk '$1 == "Inst" { print $2 }'
}
kernel_package() {
  apt-cache "${apt_options[@]}" depends linux-image-amd64 |
    awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }'
}
download() {  # into the current folder
  local name packages
  name=$(kernel_package 2>/dev/null) && [ -n "$name" ] || return 1
  packages=$(wanted_packages 2>/dev/null) || return 1
  say "fetching $name and $(echo $packages | wc -w) packages this host lacks, once, into $cache"
  # shellcheck disable=SC2086
  timeout 180 apt-get "${apt_options[@]}" download -qq "$name" $packages >&2
}
unpack_kernel() {  # 400 MB unpacked: only what the guest can need
  dpkg-deb --fsys-tarfile "$1" | tar -x -C "$kernel" --wildcards './boot/vmlinuz-*' \
    '*/lib/modules/*/modules.*' '*/lib/modules/*/kernel/drivers/infiniband/*' \
    '*/lib/modules/*/kernel/drivers/net/dummy.ko*' '*/lib/modules/*/kernel/net/*' \
    '*/lib/modules/*/kernel/crypto/*' '*/lib/modules/*/kernel/lib/*' || return 1
  [ -e "$kernel/lib" ] || ln -s usr/lib "$kernel/lib"  # newer Debian
  find "$kernel" -name '*.ko.xz' -exec xz -d {} +
}
fetch() {
  [ ! -e "$cache/complete" ] || return 0
  rm -rf "$cache/debs" "$system" "$kernel"
  mkdir -p "$cache/debs" "$system" "$kernel"
  cd "$cache/debs"
  if ! download; then  # the host's package lists are absent or old: lists of our own
    mkdir -p "$cache/lists/partial"
    apt_options+=(-o "Dir::State::Lists=$cache/lists" -o "Dir::Cache::pkgcache="
                  -o "Dir::Cache::srcpkgcache=")
    timeout 120 apt-get "${apt_options[@]}" update -qq >&2 || return 1
    download || return 1
  fi
  local deb
  for deb in ./*.deb; do
    case $deb in
      ./linux-image-*) unpack_kernel "$deb" || return 1 ;;
      *) dpkg-deb -x "$deb" "$system" || return 1 ;;
    esac
  done
  cd /
  rm -rf "$cache/debs" "$cache/lists"
  touch "$cache/complete"
}
(flock 9 && fetch) 9>"$cache/lock" ||
  skip "could not fetch a kernel and qemu from the Debian mirror (apt-get's words are above)"

libraries=$system/usr/lib/$triplet:$system/lib/$triplet
find_program() {  # the host's, else the unpacked one
  command -v "$1" && return
  local folder
  for folder in usr/bin usr/sbin bin sbin; do
    if [ -x "$system/$folder/$1" ]; then echo "$system/$folder/$1"; return; fi
  done
  skip "$1 is neither on this host nor in the packages fetched; remove $cache to fetch again"
}
qemu=$(find_program qemu-system-x86_64)
if busybox_fits; then busybox=$(command -v busybox); else busybox=$system/bin/busybox; fi
rdma=$(find_program rdma)
version=$(basename "$(echo "$kernel"/lib/modules/*)")

# --- the guest's files ----------------------------------------------------------------------------
work=$(mktemp -d "${TMPDIR:-/tmp}/engram-rdma-vm.XXXXXX")
qemu_pid=
finish() {
  [ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 143' INT TERM
root=$work/root
mkdir -p "$root"/{proc,sys,dev,tmp,etc,root,run,usr/bin,usr/lib,usr/lib64,usr/sbin,modules}
ln -s usr/bin "$root/bin"; ln -s usr/sbin "$root/sbin"
ln -s usr/lib "$root/lib"; ln -s usr/lib64 "$root/lib64"

add() {  # FILE [PATH IN THE GUEST]: with the libraries it is linked to
  local guest=${2:-${1#"$system"}} library
  [ ! -e "$root$guest" ] || return 0
  mkdir -p "$root$(dirname "$guest")"
  cp -L "$1" "$root$guest"
  [ "$(head -c 4 "$1" | tail -c 3)" = ELF ] || return 0
  { LD_LIBRARY_PATH="$libraries" ldd "$1" 2>/dev/null || true; } |
    awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' |
    while read -r library; do add "$library"; done
}
add "$busybox" /usr/bin/busybox
add "$rdma" /usr/bin/rdma
for base in "" "$system"; do  # opened at run time: the device's driver, UCX's transports
  for file in "$base/usr/lib/$triplet"/libibverbs/librxe-*.so "$base/etc/libibverbs.d/rxe.driver" \
              "$base/usr/lib/$triplet"/ucx/lib*.so.0; do
    [ ! -e "$file" ] || add "$file"
  done
done
for file in "$program" ${files[@]+"${files[@]}"}; do add "$file"; done

# Modules in an order that can be loaded: dependencies first. rxe does not name its checksum's.
"$busybox" depmod -b "$kernel" "$version"
add_module() {
  local path dependency
  path=$(sed -n "s|^\(.*/$1\.ko\):.*|\1|p" "$kernel/lib/modules/$version/modules.dep")
  if [ -z "$path" ]; then
    grep -q "/$1\.ko" "$kernel/lib/modules/$version/modules.builtin" ||
      { say "kernel $version has no module $1"; exit 125; }
    return 0
  fi
  for dependency in $(sed -n "s|^$path: *||p" "$kernel/lib/modules/$version/modules.dep"); do
    add_module "$(basename "$dependency" .ko)"
  done
  grep -qx "$1.ko" "$root/modules/order" 2>/dev/null && return 0
  cp "$kernel/lib/modules/$version/$path" "$root/modules/"
  echo "$1.ko" >>"$root/modules/order"
}
for module in dummy crc32_generic rdma_rxe; do add_module $module; done

echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
echo 'hosts: files' >"$root/etc/nsswitch.conf"
{
  printf 'exec'
  printf ' %q' "$program" "$@"
} >"$root/command"
cat >"$root/init" <<'GUEST'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm
for port in /dev/ttyS1 /dev/ttyS2; do stty -F $port raw -echo; done
give_up() { echo "init: $*"; echo 125 >/dev/ttyS2; sleep 1; poweroff -f; }
while read -r module; do insmod /modules/$module || give_up "insmod $module"; done </modules/order
ip link set lo up
[ -e /sys/class/net/dummy0 ] || ip link add dummy0 type dummy
ip link set dummy0 mtu 4300
ip addr add 10.77.0.1/24 dev dummy0
ip link set dummy0 up
rdma link add rxe0 type rxe netdev dummy0 || give_up "no SoftRoCE device"
tries=50  # its address appears a moment later
until grep -q 0a4d:0001 /sys/class/infiniband/rxe0/ports/1/gids/1; do
  tries=$((tries - 1)); [ $tries -gt 0 ] || give_up "rxe0 got no address"
  sleep 0.1
done
# UCX before 1.18 drops every datagram on RoCE devices that are not Mellanox's unless told not to
# check its destination.
export UCX_UD_VERBS_ETH_DGID_CHECK=n UCX_WARN_UNUSED_ENV_VARS=n HOME=/root
ulimit -l unlimited
echo "init: ready after $(cut -d' ' -f1 /proc/uptime) s"
sh /command </dev/null >/dev/ttyS1 2>&1
status=$?
echo "init: status $status after $(cut -d' ' -f1 /proc/uptime) s"
echo $status >/dev/ttyS2
poweroff -f
GUEST
chmod 755 "$root/init"
(cd "$root" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$work/files.cpio"

# --- boot -----------------------------------------------------------------------------------------
machine=(-M pc -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" -nodefaults -no-user-config
         -display none -no-reboot)
environment=()
if [ "${qemu#"$system"}" != "$qemu" ]; then  # unpacked, not installed: its parts are elsewhere
  environment=(env LD_LIBRARY_PATH="$libraries" QEMU_MODULE_DIR="$system/usr/lib/$triplet/qemu")
  machine+=(-L "$system/usr/share/qemu" -L "$system/usr/share/seabios")
fi
# tsc: the kernel distrusts the clock of an emulated CPU and would use a much slower one.
parameters="console=ttyS0 rdinit=/init panic=-1 quiet"
parameters+=" mitigations=off random.trust_cpu=on tsc=reliable"
${environment[@]+"${environment[@]}"} timeout -k 5 "$limit" "$qemu" "${machine[@]}" \
  -kernel "$kernel/boot/vmlinuz-$version" -initrd "$work/files.cpio" \
  -append "$parameters" \
  -serial file:"$work/console" -serial stdio -serial file:"$work/status" </dev/null &
qemu_pid=$!
machine_status=0
wait "$qemu_pid" || machine_status=$?
qemu_pid=
status=$(tr -dc 0-9 <"$work/status" 2>/dev/null || true)
if [ -z "$status" ]; then
  status=125
  if [ "$machine_status" = 124 ]; then status=124; say "out of time after $limit s"; fi
fi
if [ "$status" != 0 ]; then
  say "status $status (qemu's: $machine_status); the guest's console ends with:"
  tail -n 25 "$work/console" >&2 || true
fi
exit "$status"
