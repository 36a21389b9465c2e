#!/usr/bin/env bash
# debian.sh BUILD: the packages of that build, on a clean Debian: installed, used as a user would, purged without a
# trace. The tree is made once, by debootstrap, and kept as build/debian-CODENAME-DEPENDENCIES.tar.
build=$1
# Whatever is mounted or runs there ends with this.
apart=(unshare -m -p --fork --kill-child --propagation private)
if [ "${2:-}" != in-namespace ] && "${apart[@]}" true 2>/dev/null; then
  exec "${apart[@]}" "$0" "$build" in-namespace
fi
mkdir -p "$build/tests/packaging"
export TMPDIR=$build/tests/packaging MNT=/mnt
. "$(dirname "$0")/../interop/lib.sh"
. /etc/os-release
[ "$(id -u)" = 0 ] || skip debootstrap "only root makes a tree"
[ "${2:-}" = in-namespace ] || skip debootstrap "no namespaces of mounts and processes here"
[ "$ID" = debian ] || skip debootstrap "packages built on $ID are not for Debian"
for part in debootstrap cpack dpkg-shlibdeps; do
  command -v "$part" >/dev/null || skip debootstrap "$part is not installed"
done
tree=$T/tree
at_exit+=('umount -l "$tree/mnt/locks" "$tree/dev" "$tree/proc" 2>/dev/null')

in_tree() { chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
apt() { in_tree apt-get -q -y --no-install-recommends "$@" >"$T/apt.log" 2>&1 || { cat "$T/apt.log"; return 1; }; }
took() { echo "== $1: $SECONDS s"; SECONDS=0; }
is_bare() { in_tree sh -c '! mountpoint -q /mnt/locks'; }
setting() { sed -n "s/^$1: //p" "$tree/mnt/locks/.lockfs/config" | tr -d \"; }
# The processes of this namespace that are lockfs, by what they were called as.
called_as() {
  local file name
  for file in "$tree"/proc/[0-9]*/cmdline; do
    name=
    IFS= read -r -d '' name 2>/dev/null <"$file"
    case $name in lockfs | */lockfs | */mount.*lockfs) echo "$name" ;; esac
  done 2>/dev/null
}
no_lockfs() { [ -z "$(called_as)" ]; }
# All that is there, but for the records of apt, dpkg and mount(8).
listing() {
  (cd "$tree" && find . -path ./proc -prune -o -path ./dev -prune -o -path ./var/lib/dpkg -prune \
    -o -path ./var/lib/apt -prune -o -path ./var/cache/apt -prune -o -path ./var/log -prune \
    -o -path ./run -prune -o -path ./var/cache/debconf -prune -o -path ./var/cache/ldconfig -prune -o -path ./tmp -prune \
    -o -printf '%p %M %u:%g %l\n' | sort)
}

SECONDS=0
echo "# packages, of what is built"
"$HERE/../../scripts/package" "$build" || fail "no packages"
took "packages"

echo "# a clean $PRETTY_NAME"
mkdir "$tree"
# With all that these packages depend on, and kept for those that depend on the same.
needs=$(for file in "$build"/packages/*.deb; do dpkg-deb -f "$file" Depends; done | sed 's/lockfs (= [^)]*)//' | sha1sum | cut -c1-8)
kept=$(cd "$HERE/../.." && pwd)/build/debian-$VERSION_CODENAME-$needs.tar
if [ -f "$kept" ]; then
  tar -xf "$kept" -C "$tree" || fail "$kept: cannot be read; remove it"
else
  debootstrap --variant=minbase "$VERSION_CODENAME" "$tree" http://deb.debian.org/debian >"$T/log" 2>&1 ||
    skip debootstrap "no tree could be made: $(tail -n 1 "$T/log")"
fi
mount --rbind /dev "$tree/dev" && mount -t proc proc "$tree/proc" || fail "no /dev or /proc in the tree"
mkdir "$tree/tmp/packages"
cp "$build"/packages/*.deb "$tree/tmp/packages/"
files=()
modules=()
for file in "$tree"/tmp/packages/*.deb; do
  files+=("${file#"$tree"}")
  name=$(dpkg-deb -f "$file" Package)
  [ "$name" = lockfs ] && program=${file#"$tree"} || modules+=("${name#lockfs-}")
done
if [ ! -f "$kept" ]; then
  if ! apt install --download-only "${files[@]}"; then
    ! grep -q '^E: Failed to fetch' "$T/apt.log" || skip debootstrap "what the packages depend on cannot be got"
    fail "what the packages depend on is not in Debian"
  fi
  tar -C "$tree" --one-file-system --exclude=./tmp/packages --exclude='./dev/*' --exclude='./proc/*' \
    -cf "$kept.$$" . && mv "$kept.$$" "$kept"
fi
listing >"$T/before"
took "tree"

echo "# installed"
check "apt-get install $program" apt install "$program"
for name in "${modules[@]}"; do
  check_error "its package is lockfs-$name" "no $name yet" in_tree lockfs "$name:" /mnt
done
in_tree mkdir /mnt/locks
listing >"$T/installed"
took "installed"

echo "# mount(8)"
check "mount -t fuse.lockfs memory: /mnt/locks" in_tree mount -t fuse.lockfs memory: /mnt/locks
check_is /sbin/mount.fuse.lockfs "by the helper of the package" called_as
check "a lock" in_tree flock -n /mnt/locks/default/a true
check_is "memory: fuse.lockfs" "findmnt" in_tree sh -c 'echo $(findmnt -n -o SOURCE,FSTYPE /mnt/locks)'
check "umount" in_tree umount /mnt/locks
await "the daemon ends" no_lockfs
check "mount -t lockfs, and letters of mount(8)" in_tree mount -n -s -v -t lockfs memory: /mnt/locks
check "a lock" in_tree flock -n /mnt/locks/default/a true
check "umount" in_tree umount /mnt/locks
check "mount -f only checks" in_tree mount -f -t fuse.lockfs -o capacity=3 memory: /mnt/locks
check "nothing is mounted" is_bare
check_error "capacity" "and says what is wrong" in_tree mount -f -t fuse.lockfs -o capacity=x memory: /mnt/locks

echo "# fstab"
cp "$tree/etc/fstab" "$T/fstab" 2>/dev/null || : >"$T/fstab"
echo "memory: /mnt/locks fuse.lockfs defaults,noauto,_netdev,nofail,x-systemd.automount,config=/etc/lockfs/lockfs.toml,capacity=77 0 0" \
  >>"$tree/etc/fstab"
check "mount /mnt/locks" in_tree mount /mnt/locks
check_is 77 "capacity=77" setting capacity
check_is /etc/lockfs/lockfs.toml "config=" setting config
check "a lock" in_tree flock -n /mnt/locks/default/a true
if [ -e "$tree/usr/bin/lockctl" ]; then
  check "lockctl finds the mount" in_tree lockctl run a true
else
  echo "SKIP lockctl: not built"
fi
check "umount" in_tree umount /mnt/locks
await "the daemon ends" no_lockfs
cp "$T/fstab" "$tree/etc/fstab"

echo "# modules, also when it was called by a link"
in_tree lockfs memory: /mnt/locks
check "apt-get install ${modules[*]}, and lockfs again" apt install --reinstall "${files[@]}"
check "what was mounted goes on" in_tree flock -n /mnt/locks/default/a true
check "umount" in_tree umount /mnt/locks
await "the daemon ends" no_lockfs
for name in "${modules[@]}"; do
  for called in /usr/bin/lockfs /usr/sbin/mount.lockfs; do
    check_error "$name: takes " "$called has $name" in_tree "$called" "$name:x" /mnt/locks
  done
done

echo "# manuals, completions, unit, config file"
if ! command -v man >/dev/null; then
  echo "SKIP manuals: man is not installed"
elif [ -e "$tree/usr/share/man/man8/lockfs.8.gz" ]; then
  for page in 8:lockfs 8:mount.lockfs 8:mount.fuse.lockfs 5:lockfs.toml; do
    check "man $page" man -M "$tree/usr/share/man" -w "${page%%:*}" "${page#*:}"
  done
  [ ! -e "$tree/usr/bin/lockctl" ] || check "man 1:lockctl" man -M "$tree/usr/share/man" -w 1 lockctl
  check_is "" "groff has nothing to say" sh -c "LC_ALL=C.UTF-8 MANROFFSEQ= MANWIDTH=80 \
    man --warnings -l '$tree'/usr/share/man/man[158]/*lock*.gz 2>&1 >/dev/null"
else
  echo "SKIP manuals: not built"
fi
check_is --check-config "bash completes" in_tree bash -c 'compopt() { :; }
  . /usr/share/bash-completion/completions/lockfs; COMP_WORDS=(lockfs --che); COMP_CWORD=1; _lockfs; echo "${COMPREPLY[*]}"'
for file in zsh/vendor-completions/_lockfs fish/vendor_completions.d/lockfs.fish; do
  check "$file" test -s "$tree/usr/share/$file"
done
if command -v systemd-analyze >/dev/null; then
  # The programs that it names are in the tree alone, which has no systemd.
  mkdir "$T/units"
  sed "s,=lockfs ,=/bin/true ," "$tree/usr/lib/systemd/system/lockfs@.service" >"$T/units/lockfs@mnt-locks.service"
  check_is "" "systemd-analyze verify" sh -c "systemd-analyze verify --man=no '$T/units/lockfs@mnt-locks.service' 2>&1"
else
  echo "SKIP systemd-analyze: not installed"
fi
check "the config file is right" in_tree lockfs --config /etc/lockfs/lockfs.toml --check-config
check_is /etc/lockfs/lockfs.toml "and dpkg's to keep" in_tree sh -c \
  "dpkg-query -W -f '\${Conffiles}' lockfs | awk '{print \$1}' | xargs"
took "used"

echo "# removed"
check "apt-get remove" apt remove lockfs
check "keeps the config file" test -e "$tree/etc/lockfs/lockfs.toml"
check "apt-get purge" apt purge --autoremove 'lockfs*'
in_tree rmdir /mnt/locks
listing >"$T/after"
check "nothing is left" diff "$T/before" "$T/after"
check "although something was there" sh -c "! diff -q '$T/before' '$T/installed' >/dev/null"
took "removed"
