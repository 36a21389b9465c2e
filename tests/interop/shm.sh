#!/usr/bin/env bash
# shm: between daemons in different pid namespaces, as in containers with a common /dev/shm: process
# ids are alike and mean nothing, locks exclude each other all the same, and a death is seen.
. "$(dirname "$0")/lib.sh"
need unshare
segment=lockfs-interop-$$
at_exit+=('rm -f "/dev/shm/$segment"' 'umount -l "$T/one" "$T/two" 2>/dev/null')
mkdir "$T/one" "$T/two"
serve() { "$@" "$LOCKFS_BINARY" -f "shm:$segment?locks=64" "$T/$mount" 2>"$T/$mount.log" & }
mount=one serve unshare -p -f --kill-child
one=$!
mount=two serve unshare -p -f --kill-child
two=$!
await "the first mounts" test -e "$T/one/.lockfs/version"
await "the second mounts" test -e "$T/two/.lockfs/version"
check_is 1 "both daemons are process 1 of their namespace" sh -c "
  for mount in one two; do
    pgrep -f \"lockfs -f shm:$segment.* $T/\$mount\" | while read -r pid; do
      sed -n 's/^NSpid:.*\t//p' /proc/\$pid/status; done
  done | grep -vx '[0-9][0-9]\+' | sort -u"
exec 8<>"$T/one/default/a" 9<>"$T/two/default/a"
check "one takes a lock" bash -c 'echo EX >&8'
check_error "Resource temporarily unavailable" "the other cannot" bash -c 'echo "EX try" >&9'
check "who holds it is shown there" grep -q "mode: EX" "$T/two/default/a"
kill -9 "$one"
check "one daemon dies, the other has its lock within a second" bash -c 'echo "EX timeout=1s" >&9'
exec 8>&- 9>&-
umount -l "$T/one"
mount=one serve unshare -p -f --kill-child
await "a new one mounts" test -e "$T/one/.lockfs/version"
check "and takes locks again" flock -n "$T/one/default/a" true
umount "$T/one" "$T/two"
wait "$two"
