#!/usr/bin/env bash
# mount(8): mount -t fuse.lockfs, options of ours and of the kernel, errors that are said at once,
# umount. mount(8) clears PATH, so the helper's shell finds lockfs only in the folders of its own
# default: in a mount namespace of this script, /usr/local/sbin is a folder with nothing else.
if [ "${1:-}" != in-namespace ] && command -v unshare >/dev/null; then
  exec unshare -m --propagation private "$0" in-namespace
fi
. "$(dirname "$0")/lib.sh"
need unshare
need mount.fuse3
need flock
mkdir "$T/bin" "$T/m" "$T/other"
ln -s "$LOCKFS_BINARY" "$T/bin/lockfs"
at_exit+=('umount -l /usr/local/sbin')
mount --bind "$T/bin" /usr/local/sbin || fail "cannot bind over /usr/local/sbin"
at_exit+=('umount -l "$T/m" 2>/dev/null' 'umount -l "$T/other" 2>/dev/null')
is_bare() { ! mountpoint -q "$1"; }
option() { sed -n "s/^$1: //p" "$T/m/.lockfs/config" | tr -d \"; }
# The daemon that serves a mountpoint, by its command line.
daemon_of() {
  local dir
  for dir in /proc/[0-9]*; do
    case $(tr '\0' ' ' <"$dir/cmdline" 2>/dev/null) in
      *lockfs\ *" $1 "*) echo "${dir#/proc/}" ;;
    esac
  done
}

echo "# the plain form"
check "mount -t fuse.lockfs memory: DIR" mount -t fuse.lockfs memory: "$T/m"
check "it serves when mount(8) returns" flock -n "$T/m/default/a" true
check_is "memory: fuse.lockfs" "findmnt shows source and type" \
  sh -c "findmnt -n -o SOURCE,FSTYPE '$T/m' | xargs"
daemon=$(daemon_of "$T/m")
check "a daemon serves it" test -n "$daemon"
exec 9<>"$T/m/default/a"
flock 9
check_error "target is busy" "umount of one in use is refused" umount "$T/m"
check_status 1 "and leaves the lock" flock -n "$T/m/default/a" true
exec 9>&-
check "umount" umount "$T/m"
await "the daemon ends" ended "$daemon"
check "the directory is bare" is_bare "$T/m"

echo "# a reader of its output gets to the end while the mount goes on"
check "lockfs memory: DIR 2>&1 | cat" timeout 10 sh -c "'$LOCKFS_BINARY' memory: '$T/m' 2>&1 | cat"
check "it serves" flock -n "$T/m/default/a" true
check "umount" umount "$T/m"

echo "# the helper itself, and the older form"
check "mount.fuse3 with PATH" env PATH="$T/bin:$PATH" mount.fuse3 memory: "$T/m" -t fuse.lockfs
check "it serves" flock -n "$T/m/default/a" true
check "umount" umount "$T/m"
check "mount -t fuse lockfs#memory:" mount -t fuse 'lockfs#memory:' "$T/m"
check "it serves" flock -n "$T/m/default/a" true
check "umount" umount "$T/m"

echo "# options"
check "-o with ours and the kernel's" mount -t fuse.lockfs \
  -o capacity=3,max_lockspaces=5,root_mode=0755,nodev,nosuid,noexec,_netdev,x-systemd.automount \
  memory: "$T/m"
check_is 3 "capacity=3" option capacity
check_is 5 "max_lockspaces=5" option max_lockspaces
check_is 755 "root_mode=0755" stat -c %a "$T/m"
check "noexec reaches the kernel" sh -c "findmnt -n -o OPTIONS '$T/m' | grep -q noexec"
exec 9<>"$T/m/default/.ctl"
for id in 0 1 2; do
  echo allocate >&9
  check_is "$id" "a numbered lock" head -n 1 <&9
done
no_fourth() { echo allocate >&9; }
check_error "No space left on device" "not a fourth" no_fourth
exec 9>&-
check "a second mount is another lock manager" mount -t fuse.lockfs memory: "$T/other"
exec 9<>"$T/m/default/b"
flock 9
check "with locks of its own" flock -n "$T/other/default/b" true
exec 9>&-
check "umount of both" umount "$T/m" "$T/other"

echo "# what fstab says of any filesystem"
check "mount -o nodiratime,iversion,..." mount -t fuse.lockfs \
  -o rw,relatime,nodiratime,iversion,nomand,nofail,_netdev,nosuid memory: "$T/m"
check "it serves" flock -n "$T/m/default/a" true
check "umount" umount "$T/m"

echo "# ro: to look at, not to lock"
check "mount -o ro" mount -t fuse.lockfs -o ro memory: "$T/m"
check "it can be read" cat "$T/m/.lockfs/version"
check_error "Read-only file system" "and not locked in" flock -n "$T/m/default/a" true
check_error "Read-only file system" "nor by noclobber" \
  bash -c "set -C; : >'$T/m/default/a'"
check "umount" umount "$T/m"

echo "# what is wrong is said"
check_error "capacity" "an option's value" mount -t fuse.lockfs -o capacity=many memory: "$T/m"
check_error "memory:" "a backend that is none" mount -t fuse.lockfs nonsense://x "$T/m"
check "nothing is mounted" is_bare "$T/m"
