#!/usr/bin/env bash
# Numbered locks: podman's lock manager (clients/libpod) over memory:, file: and shm:, from two
# mounts where they share; then what a restart of the daemon leaves. Some backends: numbered.sh shm.
. "$(dirname "$0")/lib.sh"
. "$HERE/go_build.sh"
build_go libpod
libpod() { timeout 60 "$T/libpod.bin" "$@"; }
mkdir "$T/m" "$T/m2" "$T/locks"
segment=lockfs-numbered-$$
at_exit+=('[ "$status" = 0 ] || cat "$T/log" >&2')
at_exit+=("umount -l $T/m $T/m2 2>/dev/null" "rm -f /dev/shm/$segment")
D=$T/m/libpod
declare -A daemon

start() {
  "$LOCKFS_BINARY" -f "$source" "$T/$1" 2>>"$T/log" &
  daemon[$1]=$!
  await "$source is mounted" test -e "$T/$1/.lockfs/version"
}
stop() {
  check "umount" umount "$T/$1"
  wait "${daemon[$1]}"
}
stop_by_kill() {
  local holder
  hold 2
  holder=$!
  end "${daemon[$1]}"
  end "$holder"
  check "umount of what the dead daemon left" umount -l "$T/$1"
}

shows_memory() {
  check "one mount" libpod check "$MNT/libpod" "$MNT/libpod"
  source=memory:
  echo "# memory: forgets, and podman allocates its numbers anew, as after a reboot"
  start m
  check "prepare" libpod prepare "$D"
  stop m
  start m
  check "refresh" libpod refresh "$D"
  stop m
}

shows_shared() {
  source=$1
  start m
  start m2
  check "two mounts" libpod check "$D" "$T/m2/libpod"
  stop m2
  for way in stop stop_by_kill; do
    echo "# the numbers come back, after $way"
    check "prepare" libpod prepare "$D"
    $way m
    start m
    check "recall" libpod recall "$D"
  done
  stop m
}

for backend in ${*:-memory file shm}; do
  echo "# $backend:"
  case $backend in
    memory) shows_memory ;;
    file) shows_shared "file:$T/locks" ;;
    shm) shows_shared "shm:$segment?locks=1024" ;;
  esac
done
