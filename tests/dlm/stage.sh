#!/usr/bin/env bash
# stage.sh: build/dlm/{vmlinuz,base.img}, the guest of tests/dlm, from Debian's packages. Quick when it is all there.
# Guest packages are only downloaded and unpacked, in build/dlm/stage. Exit 77: in words, what cannot be had here.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin
guest=$PWD/tests/dlm/guest
out=$PWD/build/dlm
host_packages="qemu-system-x86 seabios cpio kmod"
guest_packages="dlm-controld corosync busybox-static
  libcfg7 libcmap4 libcorosync-common4 libcpg4 libknet1 libnozzle1 libqb100 libquorum5 libstatgrab10 libvotequorum8
  libdlm3 libdlmcontrol3 libsystemd0 libuuid1 libcap2 libnl-3-200 libnl-route-3-200 libgcrypt20 libgpg-error0
  liblz4-1 liblzma5 libzstd1"
modules="virtio_pci virtio_net virtio_console virtio_rng 9pnet_virtio 9p overlay fuse configfs dlm
  ocfs2_stackglue ocfs2_stack_user ocfs2_stack_o2cb ocfs2_dlmfs"
programs="corosync corosync-quorumtool corosync-cmapctl corosync-cfgtool dlm_controld dlm_tool"

skip() { echo "no virtual machines with a DLM: $*" >&2; exit 77; }

# apt's lists may be empty or name versions that are gone: once more after an update.
twice() {
  "$@" >"$out/apt.log" 2>&1 && return
  $as_root apt-get update >/dev/null 2>&1
  "$@" >"$out/apt.log" 2>&1
}

install_host_packages() {
  local missing= package
  for package in $host_packages; do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok' || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  echo "installing from Debian:$missing"
  # shellcheck disable=SC2086
  twice $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing ||
    skip "cannot install$missing ($(tail -n 1 "$out/apt.log"))"
}

kernel_package() {  # fails if there is none
  apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p' | grep -m 1 .
}

download_guest_packages() {
  local kernel deb
  twice kernel_package || skip "apt knows no linux-image-amd64"
  kernel=$(kernel_package)
  rm -rf "$out/debs" "$out/stage"
  mkdir -p "$out/debs" "$out/stage"
  echo "downloading $kernel, corosync and dlm-controld to build/dlm"
  # shellcheck disable=SC2086
  twice env -C "$out/debs" apt-get -o APT::Sandbox::User= download "$kernel" $guest_packages ||
    skip "cannot download the guest's packages ($(grep -m 1 '^E:' "$out/apt.log"))"
  for deb in "$out"/debs/*.deb; do dpkg -x "$deb" "$out/stage"; done
  rm -r "$out/debs"
  depmod -b "$out/stage" "${kernel#linux-image-}"
  cp "$out/stage/boot/vmlinuz-${kernel#linux-image-}" "$out/vmlinuz"
  echo "${kernel#linux-image-}" >"$out/stage/kernel"
}

# The staged libraries first, then the host's.
add_libraries() {
  local library
  LD_LIBRARY_PATH=$stage/usr/lib/x86_64-linux-gnu:$stage/lib/x86_64-linux-gnu ldd "$@" 2>/dev/null |
    grep -oE '/[^ ]+\.so[^ ]*' | grep -v ':$' | sort -u | while read -r library; do
    cp -Lu "$library" "$root/usr/lib/x86_64-linux-gnu/"
  done
}

add_modules() {
  local kernel module file
  kernel=$(cat "$stage/kernel")
  mkdir -p "$root/usr/lib/modules/$kernel"
  for module in $modules; do
    modprobe -d "$stage" -S "$kernel" --show-depends "$module" | sed -n 's/^insmod [^ ]*\/modules\/\([^ ]*\) *$/\1/p'
  done | sort -u | while read -r file; do
    mkdir -p "$(dirname "$root/usr/lib/modules/$file")"
    cp "$stage/lib/modules/$file" "$root/usr/lib/modules/$file"
  done
  cp "$stage/lib/modules/$kernel"/modules.{order,builtin,builtin.modinfo} "$root/usr/lib/modules/$kernel/"
  depmod -b "$root" "$kernel"
}

build_image() {
  local stage=$out/stage root=$out/root applet program
  rm -rf "$root"
  mkdir -p "$root"/{dev,proc,sys,run,tmp,etc/{corosync,dlm},var/{lib/corosync,log/cluster},root} \
    "$root"/usr/{bin,sbin,lib/x86_64-linux-gnu,lib64,local/bin}
  ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root/"
  ln -s ../run "$root/var/run"
  cp "$stage/bin/busybox" "$root/bin/"
  for applet in $("$stage/bin/busybox" --list | grep -vx busybox); do ln -s busybox "$root/bin/$applet"; done
  for program in $programs; do
    cp "$stage/usr/sbin/$program" "$root/usr/sbin/"
    add_libraries "$stage/usr/sbin/$program"
  done
  cp -L /lib64/ld-linux-x86-64.so.2 "$root/usr/lib64/"
  cp -L /lib/x86_64-linux-gnu/libgcc_s.so.1 "$root/usr/lib/x86_64-linux-gnu/"  # libdlm's pthread_cancel opens it
  add_modules
  printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\n' >"$root/etc/group"
  cp -a "$guest/." "$root/"
  (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$out/base.img.new"
  mv "$out/base.img.new" "$out/base.img"
  rm -r "$root"
}

mkdir -p "$out"
exec 9>"$out/stage.lock"
flock 9
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
[ "$(uname -m)" = x86_64 ] || skip "this is no x86_64"
command -v apt-get >/dev/null || skip "Debian's apt is missing"
install_host_packages
[ -e "$out/stage/kernel" ] || download_guest_packages
[ -e "$out/base.img" ] && [ -z "$(find tests/dlm/stage.sh "$guest" -newer "$out/base.img")" ] || build_image
